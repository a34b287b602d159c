"""Attention of tokens to each other, where ranks share them."""

from __future__ import annotations

import attrs
from torch import Tensor

from mm_models.ops.attention import Form
from mm_models.ops.choosing import Ops
from mm_models.ops.partial_attention import FORMS
from mm_models.parallel.context import Context
from mm_models.parallel.ring import ring_attention
from mm_models.parallel.ulysses import heads_of_all_tokens, tokens_of_all_heads


def over_ranks(ops: Ops, context: Context | None) -> Ops:
    """The forms of a network whose tokens ranks share: each of them gives what it gives without ranks.

    Args:
        ops: As they are chosen for one rank. With all tokens of some heads a rank calls its self-attention,
            with more queries than keys where the last ones are padding. Around a ring its attention is
            computed in the form of `FORMS` of its name, or else as `sdpa`.
        context: The ranks; None leaves everything as it is.
    """
    return ops if context is None else attrs.evolve(ops, self_attention=_form(ops, context))


def _form(ops: Ops, context: Context) -> Form:
    ring, ulysses = context.ring, context.ulysses
    name = ops.attention.__name__ if ops.attention.__name__ in FORMS else "sdpa"

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, P, H, D]` of each rank -> `[B, P, H, D]`."""
        if ulysses is not None:
            query, key, value = heads_of_all_tokens(query, key, value, ulysses)
        if ring is None:
            out = ops.self_attention(query, key[:, : context.tokens], value[:, : context.tokens])
        else:
            out, _ = ring_attention(query, key, value, context.tokens, ring.group_name, name)
        return out if ulysses is None else tokens_of_all_heads(out, ulysses)

    parts = (("ring", ring), ("ulysses", ulysses))
    attend.__name__ = "_".join(part for part, group in parts if group is not None)
    return attend

"""Ring attention: blocks of keys and values are passed round the ranks that share tokens.

Each rank keeps its queries, attends to one block after the other, and merges what it finds by the log-sum-exp
of scores (Liu et al., 2023, arXiv:2310.01889). The backward pass goes round once more, and the gradients of a
block travel with it, in float32 at least, as they add up.

Shapes: B batch, P queries of a rank and keys of a block, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from mm_models.ops.partial_attention import FORMS
from mm_models.ops.widening import widened
from mm_models.parallel.groups import named


@torch.library.custom_op("mm::ring_attention", mutates_args=())
def ring_attention(
    query: Tensor, key: Tensor, value: Tensor, tokens: int, group: str, form: str
) -> tuple[Tensor, Tensor]:
    """Attention of this rank's queries to the keys of all, and its log-sum-exp, `[B, H, P]`.

    Args:
        query: `[B, P, H, D]`.
        key: `[B, P, H, D]`, the block that this rank has.
        value: `[B, P, H, D]`.
        tokens: Of the sample; keys beyond them are padding.
        group: The ring, by the name of its process group.
        form: How a block is attended to, see `FORMS`.
    """
    ring, attend = named(group), FORMS[form].forward
    out: Tensor | None = None
    lse: Tensor | None = None
    for _, valid, (keys, values) in _around(ring, torch.stack((key, value)), tokens):
        if not valid:
            continue
        out_of_block, lse_of_block = attend(query, keys[:, :valid], values[:, :valid])
        if out is None or lse is None:
            out, lse = widened(out_of_block), lse_of_block
        else:
            out, lse = _merged(out, lse, out_of_block, lse_of_block)
    assert out is not None and lse is not None
    return out.to(query.dtype, memory_format=torch.contiguous_format), lse.contiguous()


@ring_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, tokens: int, group: str, form: str) -> tuple[Tensor, Tensor]:
    batch, count, heads, _ = query.shape
    lse = torch.promote_types(query.dtype, torch.float32)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(batch, heads, count, dtype=lse)


@torch.library.custom_op("mm::ring_attention_backward", mutates_args=())
def ring_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    tokens: int,
    group: str,
    form: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of this rank's queries, keys and values; arguments as of `ring_attention`."""
    ring, differentiate = named(group), FORMS[form].backward
    of_query = torch.zeros_like(widened(query), memory_format=torch.contiguous_format)
    mine = of_query
    travelling: Callable[[], Tensor] | None = None
    for turn, valid, (keys, values) in _around(ring, torch.stack((key, value)), tokens):
        of_block = of_query.new_zeros(2, *key.shape)
        if valid:
            of_block_query, of_block[0, :, :valid], of_block[1, :, :valid] = differentiate(
                gradient, query, keys[:, :valid], values[:, :valid], out, lse
            )
            of_query += of_block_query
        if turn == 0:
            mine = of_block
            continue
        if travelling is not None:
            of_block += travelling()
        travelling = _passed_on(of_block, ring, _GRADIENTS)
    if travelling is not None:
        mine += travelling()
    of_key, of_value = mine.to(key.dtype, copy=True)
    return of_query.to(query.dtype), of_key.clone(), of_value.clone()


@ring_attention_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    tokens: int,
    group: str,
    form: str,
) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key, of_value = (
        torch.empty_like(one, memory_format=torch.contiguous_format) for one in (query, key, value)
    )
    return of_query, of_key, of_value


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.others = inputs
    ctx.save_for_backward(query, key, value, *output)


def _back(ctx: Any, of_out: Tensor, of_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    """Nothing is made of the log-sum-exp."""
    return (*ring_attention_backward(of_out, *ctx.saved_tensors, *ctx.others), None, None, None)


ring_attention.register_autograd(_back, setup_context=_keep)


def _merged(out: Tensor, lse: Tensor, more: Tensor, lse_of_more: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to the keys of two blocks, of what was found in each; weights add up to one."""
    both = torch.logaddexp(lse, lse_of_more)
    weight, weight_of_more = ((one - both).exp().transpose(1, 2).unsqueeze(-1) for one in (lse, lse_of_more))
    return out * weight + more * weight_of_more, both


def _around(ring: ProcessGroup, block: Tensor, tokens: int) -> Iterator[tuple[int, int, Tensor]]:
    """Each rank's block, from this rank's on; the next one comes while one is worked with.

    Args:
        ring: The ranks.
        block: Keys and values of this rank, `[2, B, P, H, D]`.
        tokens: Of all blocks together, without padding.

    Yields:
        The turn, from 0, how many keys of the block are no padding, and the block.
    """
    ranks, length = ring.size(), block.shape[2]
    for turn in range(ranks):
        coming = _passed_on(block, ring, _KEYS) if turn < ranks - 1 else None
        first = (ring.rank() - turn) % ranks * length
        yield turn, min(max(tokens - first, 0), length), block
        if coming is not None:
            block = coming()


_KEYS, _GRADIENTS = 0, 1
"""Tags of messages, for backends that tell them apart."""


def _passed_on(mine: Tensor, ring: ProcessGroup, tag: int) -> Callable[[], Tensor]:
    """Sends a tensor to the next rank; what is returned waits for the one of the rank before."""
    received = torch.empty_like(mine)
    after, before = (dist.get_global_rank(ring, (ring.rank() + step) % ring.size()) for step in (1, -1))
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, mine, after, ring, tag),
            dist.P2POp(dist.irecv, received, before, ring, tag),
        ]
    )

    def wait() -> Tensor:
        for work in works:
            work.wait()
        return received

    return wait

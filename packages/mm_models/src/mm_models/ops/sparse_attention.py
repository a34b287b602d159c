"""Attention of tokens to each other that leaves out blocks of keys.

Each form is made ready once for a mask of blocks and then used in every layer and step.

Shapes: B batch, S tokens, H heads, D head width, Q K blocks of queries and of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mm_config.specs import AttentionImpl
from mm_models.ops import attention
from mm_models.ops.attention import Form

FLEX_BLOCK = 128
"""Tokens of the tiles of FlexAttention's kernels on CUDA, of which its blocks are multiples."""


@attrs.frozen
class SparseForm:
    """One way to compute it."""

    name: str
    """For people and for the record of a run."""
    ready: Callable[[Tensor, int, int, torch.device], Any]
    """`(mask_QK, block_size, tokens, device)`: what the form makes of a mask of blocks."""
    attend: Callable[[Form, Tensor, Tensor, Tensor, Any], Tensor]
    """`(dense, query_BSHD, key_BSHD, value_BSHD, ready) -> [B, S, H, D]`; `dense` is the device's exact
    attention, which not every form is made of."""


def choose_sparse(
    device: torch.device, wanted: AttentionImpl, block_size: int, *, compiled: bool
) -> SparseForm:
    """The form for a device: FlexAttention's kernels on CUDA where their tiles fit into blocks, else rows.

    Args:
        device: Where tokens lie.
        wanted: The implementation of exact attention; `REFERENCE` takes the plain form here, too.
        block_size: Tokens of a block.
        compiled: Whether blocks of the network are compiled, for which rows would be too many calls.
    """
    if wanted is AttentionImpl.REFERENCE:
        return PLAIN
    if device.type == "cuda" and block_size % FLEX_BLOCK == 0:
        return FLEX
    return MASKED if compiled else ROWS


def token_mask(mask_QK: Tensor, block_size: int, tokens: int, device: torch.device) -> Tensor:
    """`[S, S]` bools, a value for every pair of tokens."""
    by_row = mask_QK.repeat_interleave(block_size, 0)[:tokens]
    return by_row.repeat_interleave(block_size, 1)[:, :tokens].to(device)


def _plain(dense: Form, query: Tensor, key: Tensor, value: Tensor, mask_SS: Tensor) -> Tensor:
    return attention.reference(query, key, value, mask_SS)


def _masked(dense: Form, query: Tensor, key: Tensor, value: Tensor, mask_SS: Tensor) -> Tensor:
    return attention.sdpa(query, key, value, mask_SS)


Row = tuple[slice, tuple[slice, ...]]
"""Queries in a row, and the keys that all of them see."""


def rows_of(mask_QK: Tensor, block_size: int, tokens: int, device: torch.device) -> tuple[Row, ...]:
    """The rows of a mask of blocks, with neighbours among the keys in one slice."""
    found: list[Row] = []
    for index, row in enumerate(mask_QK.int()):
        ends = torch.nn.functional.pad(row, (1, 1)).diff().nonzero().flatten().tolist()
        keys = [slice(a * block_size, min(b * block_size, tokens)) for a, b in pairwise(ends)][::2]
        begin = index * block_size
        found.append((slice(begin, min(begin + block_size, tokens)), tuple(keys)))
    return tuple(found)


def _by_rows(dense: Form, query: Tensor, key: Tensor, value: Tensor, rows: tuple[Row, ...]) -> Tensor:
    """Exact attention of each block of queries to its keys, brought together: no mask is needed."""
    parts = [
        dense(
            query[:, queries],
            torch.cat([key[:, one] for one in keys], 1),
            torch.cat([value[:, one] for one in keys], 1),
        )
        for queries, keys in rows
    ]
    return torch.cat(parts, 1)


def flex_mask(mask_QK: Tensor, block_size: int, tokens: int, device: torch.device) -> BlockMask:
    """FlexAttention's mask: each block of queries with the blocks of keys that it sees whole."""
    mask_QK = mask_QK.to(device)
    counts = mask_QK.sum(1, dtype=torch.int32)[None, None]
    order = mask_QK.int().argsort(dim=1, descending=True, stable=True).int()[None, None].contiguous()

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask_QK[query // block_size, key // block_size]

    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        torch.zeros_like(order),
        counts,
        order,
        BLOCK_SIZE=block_size,
        mask_mod=sees,
        seq_lengths=(tokens, tokens),
        compute_q_blocks=False,
    )


def _flex(dense: Form, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    attend = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    return attend(query, key, value, block_mask=mask).transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    """Without a compiler FlexAttention would hold a score for every pair of tokens."""
    return torch.compile(flex_attention)


PLAIN = SparseForm("sparse_reference", token_mask, _plain)
"""The plain form of attention with a mask of every pair of tokens, which defines the others."""
MASKED = SparseForm("sparse_masked", token_mask, _masked)
"""The same by PyTorch's attention."""
ROWS = SparseForm("sparse_rows", rows_of, _by_rows)
"""Exact attention of one block of queries after the other; computes the pairs that are seen alone."""
FLEX = SparseForm("sparse_flex", flex_mask, _flex)
"""FlexAttention."""

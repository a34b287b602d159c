"""Which blocks of keys the blocks of queries see in sparse attention, told from the tokens' places alone.

Tokens lie on a grid of frames, height and width, the last axis innermost. A block is `block_size` tokens one
after the other, the last one perhaps fewer, and a block of keys is seen whole where one of its tokens is seen
by one of the queries' tokens.

Radial is Radial Attention (arXiv 2506.19852): its mask for a query at place k of frame i and a key at place
l of frame j, of s places each, with the energy of attention falling with the distance in time d = |i - j|,

    2^r (|k - l| + 1) <= f s  or  (k = l and d mod ceil(2^r / (f s)) = 0),   r = floor(log2(max(d, 1)))

and all keys of the first frame, on which attention sinks. The factor f is the spec's `decay_factor`, 1 in the
paper; a frame always sees itself. In n tokens this leaves O(n log n) pairs.

Local is a window: keys at most `window` tokens away along each of the three axes.

Shapes: Q blocks of queries, K blocks of keys, as many; P pieces: tokens of one block and of one line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_config.specs import SparseAttentionSpec, SparsePattern


def block_mask(spec: SparseAttentionSpec, grid: tuple[int, int, int]) -> Tensor:
    """`[Q, K]` bools on the CPU, True where a block of queries sees a block of keys.

    Args:
        spec: The pattern.
        grid: Tokens along frames, height and width.
    """
    frames, height, width = grid
    radial = spec.pattern is SparsePattern.RADIAL
    line = height * width if radial else width
    tokens = frames * height * width
    start_P = torch.cat((torch.arange(0, tokens, line), torch.arange(0, tokens, spec.block_size))).unique()
    count_P = torch.cat((start_P[1:], torch.tensor([tokens]))) - start_P
    first_P = start_P % line
    past_P = first_P + count_P
    gap_PP = torch.maximum(first_P - past_P[:, None] + 1, first_P[:, None] - past_P + 1).clamp(min=0)
    if radial:
        seen_PP = _radial(start_P // line, gap_PP, line, frames, spec.decay_factor)
    else:
        frame_P, row_P = start_P // (height * width), start_P // width % height
        near = [(one - one[:, None]).abs() <= spec.window for one in (frame_P, row_P)]
        seen_PP = near[0] & near[1] & (gap_PP <= spec.window)
    return _of_blocks(seen_PP, start_P // spec.block_size)


def _radial(frame_P: Tensor, gap_PP: Tensor, places: int, frames: int, factor: float) -> Tensor:
    """The mask of pieces of frames, given how many places their nearest tokens are apart."""
    share = [factor * places / 2 ** (max(d, 1).bit_length() - 1) for d in range(frames)]
    reach = torch.tensor([places, *(int(min(one, places)) for one in share[1:])])
    every = torch.tensor([math.ceil(min(1 / one, frames)) for one in share])
    distance_PP = (frame_P - frame_P[:, None]).abs()
    near = gap_PP < reach[distance_PP]
    on_diagonal = (gap_PP == 0) & (distance_PP % every[distance_PP] == 0)
    return near | on_diagonal | (frame_P == 0)


def _of_blocks(seen_PP: Tensor, block_P: Tensor) -> Tensor:
    """A mask of pieces, by the blocks that they are of."""
    count = int(block_P[-1]) + 1
    by_row = torch.zeros(count, len(block_P), dtype=torch.int32).index_add_(0, block_P, seen_PP.int())
    return torch.zeros(count, count, dtype=torch.int32).index_add_(1, block_P, by_row) > 0

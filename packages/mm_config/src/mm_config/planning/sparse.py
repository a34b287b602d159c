"""What sparse attention computes, counted block by block; `mm_models.ops.block_masks` says what is seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

from mm_config.specs.serving import SparseAttentionSpec, SparsePattern


@cache
def seen_pairs(sparse: SparseAttentionSpec, grid: tuple[int, int, int]) -> int:
    """Pairs of a query and a key that are computed, of tokens on a grid of frames, height and width."""
    tokens, size = math.prod(grid), sparse.block_size
    ranges = _radial if sparse.pattern is SparsePattern.RADIAL else _local
    missing = -tokens % size  # Of the last block.
    pairs = 0
    for begin in range(0, tokens, size):
        end, blocks = min(begin + size, tokens), 0
        for first, last in ranges(sparse, grid, begin, end):
            blocks |= (2 << last // size) - (1 << first // size)
        keys = blocks.bit_count() * size - (missing if blocks >> (tokens - 1) // size else 0)
        pairs += (end - begin) * keys
    return pairs


def _radial(
    sparse: SparseAttentionSpec, grid: tuple[int, int, int], begin: int, end: int
) -> Iterator[tuple[int, int]]:
    """First and last of the keys in a row that one of the queries from `begin` to `end` sees."""
    frames, places = grid[0], grid[1] * grid[2]
    for frame, first, last in _lines(begin, end, places):
        for other in range(frames):
            distance, start = abs(frame - other), other * places
            share = sparse.decay_factor * places / 2 ** (max(distance, 1).bit_length() - 1)
            if distance == 0 or other == 0 or share >= places:
                yield start, start + places - 1
            elif share >= 1:
                reach = int(share) - 1
                yield start + max(first - reach, 0), start + min(last + reach, places - 1)
            elif distance % math.ceil(min(1 / share, frames)) == 0:
                yield start + first, start + last


def _local(
    sparse: SparseAttentionSpec, grid: tuple[int, int, int], begin: int, end: int
) -> Iterator[tuple[int, int]]:
    """The same of a window."""
    frames, height, width = grid
    reach = sparse.window
    for line, first, last in _lines(begin, end, width):
        frame, row = divmod(line, height)
        columns = max(first - reach, 0), min(last + reach, width - 1)
        for other in range(max(frame - reach, 0), min(frame + reach + 1, frames)):
            for other_row in range(max(row - reach, 0), min(row + reach + 1, height)):
                start = (other * height + other_row) * width
                yield start + columns[0], start + columns[1]


def _lines(begin: int, end: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Each line that tokens lie on, and the first and last place that they have in it."""
    for line in range(begin // length, (end - 1) // length + 1):
        yield line, max(begin - line * length, 0), min(end - line * length, length) - 1

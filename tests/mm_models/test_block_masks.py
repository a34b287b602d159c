"""Masks of sparse attention: against the formulas token by token, and pictures drawn by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product

import attrs
import pytest
import torch

from mm_config.planning.sparse import seen_pairs
from mm_config.specs import SparseAttentionSpec, SparsePattern
from mm_models.ops.block_masks import block_mask

GRIDS = [(5, 2, 2), (8, 1, 1), (9, 2, 3), (1, 3, 4), (6, 3, 5), (3, 4, 1)]


def radial(factor: float, block_size: int = 1) -> SparseAttentionSpec:
    return SparseAttentionSpec(decay_factor=factor, block_size=block_size)


def local(window: int) -> SparseAttentionSpec:
    return SparseAttentionSpec(pattern=SparsePattern.LOCAL, window=window, block_size=1)


def axes(token: int, height: int, width: int) -> tuple[int, int, int]:
    return token // (height * width), token // width % height, token % width


def sees(spec: SparseAttentionSpec, grid: tuple[int, int, int], query: int, key: int) -> bool:
    """The formulas for one token and another, in fractions."""
    _, height, width = grid
    places = height * width
    if spec.pattern is SparsePattern.LOCAL:
        apart = (abs(a - b) for a, b in zip(*(axes(one, height, width) for one in (query, key)), strict=True))
        return max(apart) <= spec.window
    (frame, place), (other, its_place) = divmod(query, places), divmod(key, places)
    distance = abs(frame - other)
    if other == 0 or distance == 0:
        return True
    power, reach = 1, Fraction(spec.decay_factor) * places
    while 2 * power <= distance:
        power *= 2
    if power * (abs(place - its_place) + 1) <= reach:
        return True
    return place == its_place and distance % math.ceil(power / reach) == 0


def by_loops(spec: SparseAttentionSpec, grid: tuple[int, int, int]) -> list[list[bool]]:
    """Blocks of which one token sees one of the other's."""
    tokens = math.prod(grid)
    blocks = [
        range(start, min(start + spec.block_size, tokens)) for start in range(0, tokens, spec.block_size)
    ]
    return [[any(sees(spec, grid, *pair) for pair in product(a, b)) for b in blocks] for a in blocks]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("pattern", [radial(1.0), radial(0.3), radial(0.05), radial(2.5), local(1), local(2)])
def test_blocks_are_seen_where_the_formulas_say_so_of_one_of_their_tokens(
    grid: tuple[int, int, int], size: int, pattern: SparseAttentionSpec
):
    spec = attrs.evolve(pattern, block_size=size)
    wanted = by_loops(spec, grid)
    assert block_mask(spec, grid).tolist() == wanted
    tokens = math.prod(grid)
    sizes = [min(size, tokens - start) for start in range(0, tokens, size)]
    pairs = sum(
        a * b
        for row, a in zip(wanted, sizes, strict=True)
        for seen, b in zip(row, sizes, strict=True)
        if seen
    )
    assert seen_pairs(spec, grid) == pairs


def drawn(spec: SparseAttentionSpec, grid: tuple[int, int, int]) -> list[str]:
    return ["".join(".X"[seen] for seen in row) for row in block_mask(spec, grid).tolist()]


def test_frames_of_one_token_are_seen_at_distances_that_their_powers_of_two_divide():
    """0 to 2 apart: all; 3: none, since 2 doesn't divide it; of 4 to 7: 4; and all of the first frame."""
    assert drawn(radial(1.0), (8, 1, 1)) == [
        "XXX.X...",
        "XXXX.X..",
        "XXXXX.X.",
        "XXXXXX.X",
        "X.XXXXX.",
        "XX.XXXXX",
        "X.X.XXXX",
        "X..X.XXX",
    ]


def test_windows_of_frames_shrink_by_half():
    """Places of a row of 4: 2 and 3 frames apart reach their neighbours, 4 apart themselves."""
    last = drawn(radial(1.0), (7, 1, 4))[6 * 4 + 1]
    assert last == "XXXX" + ".X.." + ".X.." + "XXX." + "XXX." + "XXXX" + "XXXX"


def test_a_window_reaches_along_each_axis():
    """The middle of 3 frames of 3 rows of 5, with a reach of 1."""
    row = drawn(local(1), (3, 3, 5))[15 + 5 + 1]
    assert row == "XXX.." * 9
    assert drawn(local(1), (3, 3, 5))[4] == "...XX...XX....." * 2 + "." * 15


def test_pairs_of_an_example_are_those_counted_by_hand():
    """5 frames of 2 places: all of the first, 1 apart all, further apart only the same place.

    First frame 5 x 4; itself 4 x 4; 1 apart 7 x 4; 2 apart 5 x 2; 3 apart 3 x 2; 4 apart 2.
    """
    assert seen_pairs(radial(1.0), (5, 1, 2)) == 20 + 16 + 28 + 10 + 6 + 2
    assert seen_pairs(radial(1.0, block_size=2), (5, 1, 2)) == 100


def test_radial_needs_little_more_per_token_with_twice_the_frames():
    """Exact attention needs twice as much, O(n log n) a sum that is the same at each doubling."""
    counted = [seen_pairs(radial(1.0), (frames, 4, 4)) for frames in (16, 32, 64, 128)]
    per_token = [pairs / (frames * 16) for pairs, frames in zip(counted, (16, 32, 64, 128), strict=True)]
    rises = [later - earlier for earlier, later in pairwise(per_token)]
    assert all(later <= earlier for earlier, later in pairwise(rises))
    assert per_token[-1] < 0.2 * 128 * 16


@pytest.mark.parametrize("factor", [5e-324, 1e-9, 1e300])
def test_factors_at_the_ends_of_floats_make_masks(factor: float):
    spec = radial(factor, block_size=2)
    mask = block_mask(spec, (9, 2, 3))
    assert mask.diagonal().all() and mask[:, :3].all()
    assert seen_pairs(spec, (9, 2, 3)) == int(mask.sum()) * 4
    assert mask.dtype == torch.bool

"""Which cells the matrix has, and which of them everyday tests carry out."""

import math
import os
from itertools import combinations, product
from pathlib import Path

import pytest
import torch.distributed as dist

from mm_config import rules
from tests.mm_train.layouts.cells import AXES, GRIDS, RANKS, all_pairs, every
from tests.mm_train.layouts.pool import Pool


def test_the_chosen_cells_have_each_pair_of_values_of_two_axes() -> None:
    chosen = all_pairs(every())
    assert len(chosen) <= 30 and {cell.grid for cell in chosen} == set(GRIDS)
    for one, other in combinations(AXES, 2):
        found = {(getattr(cell, one), getattr(cell, other)) for cell in chosen}
        assert found == set(product(AXES[one], AXES[other])), (one, other)


def test_cells_are_legal_and_twelve_numbers_of_tokens_that_no_degree_divides_are_dealt_round() -> None:
    counts = {math.prod(grid) for grid in GRIDS}
    assert len(counts) == 12 and all(count % 2 for count in counts)
    cells = every()
    assert {cell.grid for cell in cells} == set(GRIDS)
    assert len({str(cell) for cell in cells}) == len(cells) == math.prod(map(len, AXES.values()))
    for cell in cells:
        rules.check(cell.spec, RANKS)


def _answer(order: str) -> int:
    rank = dist.get_rank()
    if order == "fail" and rank == 1:
        raise ValueError("that was rank 1")
    if order != "pid":
        dist.barrier()
    return os.getpid()


def test_ranks_are_forked_once_and_again_after_one_failed(tmp_path: Path) -> None:
    pool = Pool(_answer, tmp_path, 2)
    first = pool.ask("together")
    assert first == pool.ask("pid") and len({*first, os.getpid()}) == 3
    with pytest.raises(AssertionError, match=r"without an answer: \[0\](.|\n)*that was rank 1"):
        pool.ask("fail")
    again = pool.ask("together")
    assert not set(first) & set(again)
    pool.close()

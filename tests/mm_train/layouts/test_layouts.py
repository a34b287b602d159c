"""Four ranks compute what one process does, however they share clips, tokens, matrices and parameters."""

from collections.abc import Callable

import pytest

from tests.mm_train.layouts.cells import COMPILED_CELLS, FURTHER_CELLS, Cell, all_pairs, every, named
from tests.mm_train.layouts.mistakes import MISTAKES

Held = Callable[..., list[str]]
CHOSEN = all_pairs(every())
REST = [cell for cell in every() if cell not in CHOSEN]


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
def test_loss_norm_and_gradients_are_those_of_one_process(cell: Cell, held: Held) -> None:
    assert held(cell) == []


@pytest.mark.slow
@pytest.mark.parametrize("cell", (*REST, *COMPILED_CELLS, *FURTHER_CELLS), ids=str)
def test_so_are_they_in_all_other_cells(cell: Cell, held: Held) -> None:
    assert held(cell) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: str, held: Held) -> None:
    cell, wrong, _ = MISTAKES[mistake]
    lines = held(named(cell), mistake)
    assert any(line.startswith(wrong) for line in lines), lines

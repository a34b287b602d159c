"""Pages of runs, on both databases: filtered, sorted, counted and cut as a plain list is."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from experiments import tiny, tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.asking import Asked
from mm_config.runs.conditions import parse_condition
from mm_config.runs.folder import open_run
from mm_config.runs.index import Index, open_index
from mm_config.runs.lock import release
from mm_config.runs.paging import page_of
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import UserError

pytestmark = pytest.mark.usefixtures("each_database")
RATES = {"a": 1e-5, "b": 3e-3, "c": 1.0, "d": 3e-3, "e": 2e-4}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five trainings and a generation, which has no learning rate; one was killed, and one is running."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in RATES.items():
        run = open_run(replace(tiny_high.SPEC, {"name": name, "optim.lr": rate}), RunOptions(folder))
        if name == "d":
            release(run.path)
        elif name == "b":
            run.fail("planted")
        elif name != "e":
            run.finish({})
    open_run(replace(tiny.SPEC, {"name": "made"}), RunOptions(folder)).finish({})
    return folder


@pytest.fixture
def index(runs_dir: Path) -> Index:
    return open_index(runs_dir)


def names(index: Index, asked: Asked) -> list[str]:
    return [run.record.name for run in page_of(index, asked).runs]


def test_pages_follow_each_other_and_know_the_total(index: Index) -> None:
    newest = [record.name for record in index.list()]
    assert newest == ["made", "e", "d", "c", "b", "a"]
    pages = [page_of(index, Asked(first=first, most=4)) for first in (0, 4, 8)]
    assert [run.record.name for page in pages for run in page.runs] == newest
    assert [page.total for page in pages] == [6, 6, 6]
    page = page_of(index, Asked(where=(parse_condition("optim.lr=3e-3"),), most=1))
    assert (len(page.runs), page.total) == (1, 2)


def test_they_are_sorted_by_columns_and_by_fields_with_those_without_a_value_last(index: Index) -> None:
    by_name = Asked(order="name", descending=False)
    assert names(index, by_name) == ["a", "b", "c", "d", "e", "made"]
    rising = sorted(RATES, key=lambda name: (RATES[name], name != "d"))
    assert names(index, Asked(order="optim.lr", descending=False)) == [*rising, "made"]
    falling = sorted(RATES, key=lambda name: (-RATES[name], name != "d"))
    assert names(index, Asked(order="optim.lr")) == [*falling, "made"]


def test_fields_are_shown_of_the_runs_that_have_them(index: Index) -> None:
    page = page_of(index, Asked(fields=("optim.lr", "optim.betas", "samples.seeds")))
    shown = {run.record.name: run.fields for run in page.runs}
    assert shown["c"] == {"optim.lr": 1.0, "optim.betas": [0.9, 0.99]}
    assert shown["made"] == {"samples.seeds": [1001, 1002]}


def test_a_killed_run_counts_as_interrupted_though_the_index_has_it_as_running(index: Index) -> None:
    found = {status: names(index, Asked(status=status)) for status in RunStatus}
    assert found == {
        RunStatus.RUNNING: ["e"],
        RunStatus.FINISHED: ["made", "c", "a"],
        RunStatus.FAILED: ["b"],
        RunStatus.INTERRUPTED: ["d"],
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(order="optim.rl"), "spec.optim.rl: no stored run has this field; did you mean spec.optim.lr?"),
        (Asked(fields=("optim.rl",)), "spec.optim.rl: no stored run has this field"),
        (Asked(where=(parse_condition("optim.rl>1"),)), "spec.optim.rl: no stored run has this field"),
        (Asked(where=(parse_condition("optim.lr=fast"),)), "spec.optim.lr: holds a number such as"),
        (Asked(since="soon"), "'soon' is no date or time"),
    ],
)
def test_what_no_run_can_meet_is_said(index: Index, asked: Asked, said: str) -> None:
    with pytest.raises(UserError) as caught:
        page_of(index, asked)
    assert said in str(caught.value)


def test_an_empty_page_is_no_error(index: Index) -> None:
    page = page_of(index, Asked(where=(parse_condition("optim.lr>5"),), fields=("optim.lr",)))
    assert (page.runs, page.total) == ((), 0)
    assert page_of(index, attrs.evolve(Asked(), matching="no\0such")).total == 0

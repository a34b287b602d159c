"""Runs whose process was killed before any call that changes a file: nothing is lost, jammed or unlisted."""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
from functools import partial
from itertools import count, takewhile
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config import spec_hash
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
from mm_config.runs.index import Index, open_index, unfilled_index
from mm_config.runs.record import RunStatus
from tests.mm_config.forks import alone, killed_before

pytestmark = pytest.mark.usefixtures("quick_runs")


def new(runs_dir: Path) -> None:
    open_run(SPEC, RunOptions(runs_dir)).finish({"loss": 1})


def again(runs_dir: Path) -> None:
    open_run(SPEC, RunOptions(runs_dir, resume="latest")).finish({"loss": 1})


def killed(runs_dir: Path) -> None:
    open_run(SPEC, RunOptions(runs_dir))
    os._exit(9)


def failed(runs_dir: Path) -> None:
    open_run(SPEC, RunOptions(runs_dir)).fail("out of memory")


def by_the_folders(runs_dir: Path) -> dict[str, str]:
    """What is true where no process lives, read without the package: a run with a result has finished."""
    states: dict[str, str] = {}
    for file in runs_dir.glob("[!.]*/[!.]*/status.json"):
        said = json.loads(file.read_text())["status"].replace("running", "interrupted")
        is_over = file.with_name("result.json").exists()
        states[f"{file.parent.parent.name}/{file.parent.name}"] = "finished" if is_over else said
    return states


def check(runs_dir: Path) -> None:
    """The list tells the truth, finished runs are found as such, and the others can be resumed."""
    states = by_the_folders(runs_dir)
    index = open_index(runs_dir)
    assert {record.path: record.status.value for record in index.list()} == states
    finished = {path for path, status in states.items() if status == "finished"}
    assert {record.path for record in index.find_finished(spec_hash(SPEC))} == finished
    if states:
        assert alone(lambda: again(runs_dir)) == "None"
        assert set(by_the_folders(runs_dir).values()) == {"finished"}
        assert {record.status for record in open_index(runs_dir).list()} == {RunStatus.FINISHED}


def base_of(tmp_path: Path, before: str) -> Path:
    """A runs folder in which a run has been left in some way."""
    base = tmp_path / f"{before}-before"
    base.mkdir()
    if before != "none":
        alone(lambda: {"killed": killed, "failed": failed, "finished": new}[before](base))
    return base


def killed_in_copy(base: Path, number: int) -> bool:
    """Kills a run before one of its calls, in a copy of a runs folder, and checks what it leaves."""
    here = base.with_name(f"{base.name}-{number}")
    shutil.copytree(base, here)
    index = unfilled_index(here)
    with index.engine.begin() as connection:  # A database elsewhere is not copied.
        index.runs.create(connection, checkfirst=True)
        connection.execute(index.runs.delete())
    index.reindex()
    was_killed = killed_before(number, lambda: (new if base.name == "none-before" else again)(here))
    check(here)
    shutil.rmtree(here)
    return was_killed


BEFORE = ("none", "killed", "failed", "finished")


@pytest.mark.slow
@pytest.mark.parametrize("before", BEFORE)
def test_a_run_that_is_killed_before_any_of_its_calls_is_listed_as_it_is_and_goes_on(
    tmp_path: Path, before: str, each_database: str
) -> None:
    base = base_of(tmp_path, before)
    killed_at = list(takewhile(partial(killed_in_copy, base), count(1)))
    print(f"{each_database}: {len(killed_at)} calls of a run, {before} before")


def test_a_run_that_is_killed_before_one_of_some_calls_drawn_today_is_listed_as_it_is_and_goes_on(
    tmp_path: Path,
) -> None:
    draw = random.Random(seed := datetime.date.today().toordinal())
    for before in BEFORE:
        number = draw.randint(1, 50)
        print(f"seed {seed}: killed before call {number} of a run, {before} before")
        assert killed_in_copy(base_of(tmp_path, before), number)


def test_a_run_that_is_killed_before_it_is_registered_has_no_path_that_the_index_knows(
    tmp_path: Path, each_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_run(SPEC, RunOptions(tmp_path / "here"))
    first.finish({})
    other = "here"
    if each_database == "sqlite":
        shutil.rmtree(first.path)  # By hand.
    else:
        other = "there"  # Whose runs the same database holds.

    def unregistered() -> None:
        monkeypatch.setattr(Index, "add", lambda *_: os._exit(9))
        open_run(SPEC, RunOptions(tmp_path / other))

    alone(unregistered)
    paths = {record.path for record in open_index(tmp_path / other).list(status=RunStatus.INTERRUPTED)}
    assert paths == set(by_the_folders(tmp_path / other)) == {f"{first.record.path[:-1]}2"}

"""Runs and their index between processes that register, resume, read and rebuild at once, or are killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.tiny_high import SPEC
from mm_config.options.run_options import RunOptions
from mm_config.runs.conditions import parse_condition
from mm_config.runs.folder import open_run
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from tests.mm_config.forks import alone, at_once

pytestmark = [pytest.mark.usefixtures("each_database", "quick_runs")]
MANY = pytest.mark.parametrize("each", [2, pytest.param(25, marks=pytest.mark.slow)])


def killed(runs_dir: Path) -> None:
    open_run(SPEC, RunOptions(runs_dir))
    os._exit(9)


def register(runs_dir: Path, times: int) -> Callable[[], str]:
    """Runs so many times; gives the paths of its runs."""

    def work() -> str:
        paths: list[str] = []
        for number in range(times):
            run = open_run(SPEC, RunOptions(runs_dir))
            run.log({"process": os.getpid(), "number": number})
            run.finish({"process": os.getpid(), "number": number})
            paths.append(run.record.path)
        return " ".join(paths)

    return work


def resume(runs_dir: Path) -> Callable[[], str]:
    return lambda: str(open_run(SPEC, RunOptions(runs_dir, resume="latest")).record.path)


def read(runs_dir: Path, times: int) -> Callable[[], str]:
    """Lists again and again: no run is seen to end badly, and none that was seen is missing later."""

    def work() -> str:
        seen = set[str]()
        for _ in range(times):
            records = open_index(runs_dir).list()
            paths = {record.path for record in records}
            assert len(paths) == len(records) and seen <= paths
            assert {record.status for record in records} <= {RunStatus.RUNNING, RunStatus.FINISHED}
            seen = paths
        return "read"

    return work


def rebuild(runs_dir: Path, times: int) -> Callable[[], str]:
    def work() -> str:
        for _ in range(times):
            open_index(runs_dir).reindex()
        return "rebuilt"

    return work


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    alone(lambda: killed(tmp_path))
    index = open_index(tmp_path)
    assert [record.status for record in index.list(status=RunStatus.INTERRUPTED)] == [RunStatus.INTERRUPTED]
    assert index.list(status=RunStatus.RUNNING) == ()


@MANY
def test_processes_that_register_at_once_in_an_empty_place_lose_nothing(tmp_path: Path, each: int) -> None:
    runs_dir = tmp_path / "runs"
    told = at_once([register(runs_dir, each)] * 8)
    paths = " ".join(told).split(" ")
    assert len(set(paths)) == 8 * each, told
    records = open_index(runs_dir).list()
    assert sorted(record.path for record in records) == sorted(paths)
    assert {record.status for record in records} == {RunStatus.FINISHED}
    assert len({(runs_dir / path / "result.json").read_text() for path in paths}) == 8 * each


@MANY
def test_of_processes_that_resume_a_run_at_once_one_goes_on(tmp_path: Path, each: int) -> None:
    alone(lambda: killed(tmp_path))
    (record,) = open_index(tmp_path).list()
    for _ in range(each):
        told = at_once([resume(tmp_path)] * 4)
        refused = [line for line in told if line != record.path]
        assert len(refused) == 3, told
        for line in refused:
            assert line.startswith(f"{tmp_path / record.path}: ") and "\n" not in line
            assert "the run is in use by process " in line or "has just taken the run" in line
    (after,) = open_index(tmp_path).list()
    assert (after.uid, after.status) == (record.uid, RunStatus.INTERRUPTED)


@pytest.mark.parametrize("each", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_readers_and_rebuilds_beside_processes_that_register_lose_nothing(tmp_path: Path, each: int) -> None:
    told = at_once(
        [
            *[register(tmp_path, each)] * 3,
            *[read(tmp_path, 2 * each)] * 3,
            *[rebuild(tmp_path, each)] * 2,
        ]
    )
    assert told[3:] == ["read"] * 3 + ["rebuilt"] * 2
    index = open_index(tmp_path)
    assert sorted(record.path for record in index.list()) == sorted(" ".join(told[:3]).split(" "))
    assert [record.status for record in index.list()] == [RunStatus.FINISHED] * 3 * each
    assert len(index.list(where=[parse_condition("seed=0")])) == 3 * each

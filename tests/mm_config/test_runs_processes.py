"""The SQL index beside processes that register at once, that rebuild it, and that were killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mm_config.runs.conditions import parse_condition
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus

each_database = pytest.mark.usefixtures("each_database")


KILLED = """
import os, pathlib, sys
from experiments.tiny_high import SPEC
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
open_run(SPEC, RunOptions(pathlib.Path(sys.argv[1])))
os._exit(9)
"""


@each_database
def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    index = open_index(tmp_path)
    assert [record.status for record in index.list(status=RunStatus.INTERRUPTED)] == [RunStatus.INTERRUPTED]
    assert index.list(status=RunStatus.RUNNING) == ()


def at_once(runs_dir: Path, programs: Sequence[tuple[str, int]]) -> None:
    """Runs programs side by side: each starts its work, so many times, when all have been imported."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(runs_dir), str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for code, times in programs
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0


REGISTER = """
import pathlib, sys
from experiments.tiny_high import SPEC
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import open_run
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    open_run(SPEC, RunOptions(pathlib.Path(sys.argv[1]))).finish({})
"""


@each_database
def test_processes_that_register_at_once_lose_nothing(tmp_path: Path) -> None:
    each = 5
    at_once(tmp_path / "runs", [(REGISTER, each), (REGISTER, each)])
    records = open_index(tmp_path / "runs").list()
    assert len(records) == len({record.path for record in records}) == 2 * each
    assert {record.status for record in records} == {RunStatus.FINISHED}


REINDEX = """
import pathlib, sys
from mm_config.runs.index import open_index
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    open_index(pathlib.Path(sys.argv[1])).reindex()
"""


@each_database
def test_a_rebuild_beside_processes_that_register_loses_nothing(tmp_path: Path) -> None:
    at_once(tmp_path, [(REGISTER, 3), (REGISTER, 3), (REINDEX, 5)])
    index = open_index(tmp_path)
    assert [record.status for record in index.list()] == [RunStatus.FINISHED] * 6
    assert len(index.list(where=[parse_condition("seed=0")])) == 6

"""`--like RUN`: as many threads as a stored run had, in processes that load torch early or late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.tiny_high import SPEC
from mm_config.cli.like import LIKE, threads_like
from mm_config.cli.scan import RUNS_DIR, scan
from mm_config.options.run_options import RunOptions, Threads
from mm_config.running.threads import on_threads
from mm_config.runs.folder import open_run
from mm_config.schema.errors import UserError


def given(run: str, runs_dir: Path) -> Threads | None:
    return threads_like(scan(["--like", run, "--runs-dir", str(runs_dir)], (LIKE, RUNS_DIR)))


def test_the_threads_of_a_run_are_those_that_it_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with on_threads(Threads(openmp=3, torch=2)):
        run = open_run(SPEC, RunOptions(tmp_path))
    file = run.path / "provenance.json"
    content = json.loads(file.read_text())
    assert (content["threads"], content["intra_op_threads"]) == (3, 2)
    for target in (run.record.path, run.record.spec_hash[:8], str(run.path)):
        assert given(target, tmp_path) == Threads(openmp=3, torch=2)
    assert threads_like(scan([], (LIKE, RUNS_DIR))) is None
    del content["intra_op_threads"]
    file.write_text(json.dumps(content))
    assert given(run.record.path, tmp_path) == Threads(openmp=3, torch=None)
    file.write_text("{}")
    with pytest.raises(UserError, match=r"--like: .* tells of no threads"):
        given(run.record.path, tmp_path)
    with pytest.raises(UserError, match="abcdef: no run in"):
        given("abcdef", tmp_path)


def test_threads_are_set_for_a_block_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with on_threads(Threads(openmp=3, torch=2)):
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("3", 2)
        with on_threads(Threads(openmp=5, torch=None)), on_threads(None):
            assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("5", 5)
        assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("3", 2)
    assert "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() == before


def test_torch_that_is_loaded_in_the_block_computes_on_them() -> None:
    code = """
from mm_config.options import Threads
from mm_config.running import on_threads
threads = Threads(openmp=3, torch=2)
with on_threads(threads):
    import torch
    with on_threads(threads):
        print(torch.get_num_threads())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "2\n"

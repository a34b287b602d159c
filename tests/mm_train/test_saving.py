"""States that are written beside the steps: the same files, one at a time, and no error is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint, shards
from mm_train import states
from tests.mm_train.forked import forked, wait_for

Losses = Callable[[Path], list[float]]
STEPS = 8


@pytest.fixture
def beside(small: TrainSpec, request: pytest.FixtureRequest) -> TrainSpec:
    changes = {"checkpoint.every_steps": 2, "checkpoint.keep_last": 2, "checkpoint.asynchronous": True}
    name = request.function.__name__[5:45]
    return replace(small, {"name": name, "schedule.steps": STEPS, "schedule.warmup_steps": 1, **changes})


def tensors_in(folder: Path) -> dict[str, Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def folder_of(options: RunOptions, spec: TrainSpec) -> Path:
    (folder,) = (options.runs_dir / spec.name).iterdir()
    return folder


def steps_in(folder: Path) -> list[int]:
    return sorted(states.step_of(path) for path in checkpoint.newest_first(folder / "checkpoints"))


def test_beside_the_steps_the_same_states_are_written(
    beside: TrainSpec, options: RunOptions, losses_of: Losses, capsys: pytest.CaptureFixture[str]
) -> None:
    found = mm_train.train(beside, options)
    said = capsys.readouterr().out
    waited = {"name": "waited", "checkpoint.asynchronous": False, "checkpoint.every_steps": 1}
    expected = mm_train.train(replace(beside, {**waited, "checkpoint.keep_last": 9}), options)
    assert losses_of(found.run_dir) == losses_of(expected.run_dir)
    assert steps_in(found.run_dir) == [6, 8]
    for step in (6, 8):
        ours, theirs = (
            tensors_in(states.step_folder(run.run_dir / "checkpoints", step)) for run in (found, expected)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    stalls = {line["step"]: line["checkpoint"] for line in lines_of(found.run_dir) if "checkpoint" in line}
    assert stalls.keys() == {2, 4, 6, 8}
    assert all(one.keys() == {"copy_seconds", "wait_seconds"} for one in stalls.values())
    assert "4 checkpoints written beside the steps in " in said
    assert not any("checkpoint" in line for line in lines_of(expected.run_dir))


def test_steps_go_on_while_one_is_written_and_the_next_one_waits_for_it(
    beside: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, held, at_once = shards.write_shards, threading.Event(), []
    writing = threading.Lock()

    def slowly(path: Path, own: Any) -> dict[str, Any]:
        assert held.wait(60)
        at_once.append(writing.acquire(blocking=False))
        time.sleep(0.05)
        writing.release()
        return write(path, own)

    def noted(step: mm_train.Step) -> None:
        if step.step == 4:  # It begins after this step, and waits for that of step 2.
            assert checkpoint.newest_first(folder_of(options, beside) / "checkpoints") == []
            held.set()

    monkeypatch.setattr(checkpoint, "write_shards", slowly)
    result = mm_train.train(beside, options, noted)
    assert len(at_once) == 8 and all(at_once)
    assert steps_in(result.run_dir) == [6, 8]
    stalls = {line["step"]: line["checkpoint"] for line in lines_of(result.run_dir) if "checkpoint" in line}
    assert stalls[4]["wait_seconds"] > 0.05 > stalls[2]["wait_seconds"]


def test_a_state_is_written_as_it_was_when_it_was_copied(
    beside: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread begins only once the next step has changed every weight."""
    commit, later = states.commit, threading.Event()

    def late(folder: Path, spec: TrainSpec, own: states.Shards, state: states.TrainState, *rest: Any) -> Path:
        assert state.step == STEPS or later.wait(60)
        return commit(folder, spec, own, state, *rest)

    def noted(step: mm_train.Step) -> None:
        (later.set if step.step % 2 else later.clear)()

    monkeypatch.setattr(states, "commit", late)
    found = mm_train.train(replace(beside, "checkpoint.keep_last", 9), options, noted)
    monkeypatch.undo()
    waited = {"name": "at once", "checkpoint.asynchronous": False, "checkpoint.keep_last": 9}
    expected = mm_train.train(replace(beside, waited), options)
    for step in (2, 4, 6, 8):
        ours, theirs = (
            tensors_in(states.step_folder(run.run_dir / "checkpoints", step)) for run in (found, expected)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_error_of_the_write_is_raised_after_the_next_step_and_the_one_before_is_resumed(
    beside: TrainSpec, options: RunOptions, losses_of: Losses, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed, reached = shards.write_shards, threading.Event(), []

    def full(path: Path, own: Any) -> dict[str, Any]:
        if "step-00000004" in str(path):
            failed.set()
            raise OSError(28, "No space left on device", str(path))
        return write(path, own)

    def noted(step: mm_train.Step) -> None:
        reached.append(step.step)
        if step.step == 5:
            assert failed.wait(60)
            time.sleep(0.2)

    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(checkpoint, "write_shards", full)
        mm_train.train(beside, options, noted)
    folder = folder_of(options, beside)
    where = states.step_folder(folder / "checkpoints", 4)
    assert str(caught.value) == f"{where}: the checkpoint can't be written: No space left on device"
    assert reached == [1, 2, 3, 4, 5]
    assert steps_in(folder) == [2]
    resumed = mm_train.train(beside, attrs.evolve(options, resume=str(folder)))
    assert losses_of(resumed.run_dir) == losses_of(
        mm_train.train(replace(beside, "name", "all_that_was_not_full"), options).run_dir
    )


def test_a_run_that_ends_by_an_error_lets_the_state_be_written_first(
    beside: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shards.write_shards

    def slowly(path: Path, own: Any) -> dict[str, Any]:
        time.sleep(0.2)
        return write(path, own)

    def broken(step: mm_train.Step) -> None:
        if step.step == 3:
            step_folder = states.step_folder(folder_of(options, beside) / "checkpoints", 2)
            assert not step_folder.exists()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_shards", slowly)
    with pytest.raises(KeyboardInterrupt):
        mm_train.train(beside, options, broken)
    assert steps_in(folder_of(options, beside)) == [2, 3]


@pytest.mark.parametrize("last", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_while_it_writes_nothing_that_was_committed_is_lost(
    beside: TrainSpec, options: RunOptions, losses_of: Losses, tmp_path: Path, last: int
) -> None:
    """Also where nothing is committed yet: more steps were logged than lie between two checkpoints."""
    spec = replace(beside, {"name": f"killed_{last}", "checkpoint.every_steps": 2})

    def hangs() -> None:
        write = shards.write_shards

        def stuck(path: Path, own: Mapping[str, Any]) -> dict[str, Any]:
            if int(path.parents[1].name[5:13]) > last:
                (tmp_path / "stuck").touch()
                time.sleep(60)
            return write(path, own)  # type: ignore[arg-type]

        checkpoint.write_shards = stuck  # type: ignore[assignment]
        mm_train.train(spec, options)

    child = forked(hangs, tmp_path / "child")
    with child.killed_after_all():
        wait_for((tmp_path / "stuck").exists)
        folder = folder_of(options, spec)
        wait_for(lambda: any(line["step"] == last + 3 for line in _logged(folder)))
        os.kill(child.pid, signal.SIGKILL)
        child.status()
    assert steps_in(folder) == [2] * (last > 0)
    assert (states.step_folder(folder / "checkpoints", last + 2).with_suffix(".tmp")).is_dir()
    resumed = mm_train.train(spec, attrs.evolve(options, resume=str(folder)))
    assert losses_of(resumed.run_dir) == losses_of(
        mm_train.train(replace(spec, "name", "whole"), options).run_dir
    )
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-00000006", "step-00000008"}


def _logged(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]

"""Runs that are killed or asked to stop and go on by themselves, to the same bits, with all time told."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from safetensors.torch import load_file

import mm_train
from experiments import tiny_high
from mm_config import replace
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from mm_train import losses, states
from mm_train.grace import GRACE_SECONDS, Grace
from mm_train.ledger import PARTS, account_of
from tests.mm_train.conftest import SMALL
from tests.mm_train.forked import wait_for
from tests.mm_train.relaunched import launched
from tests.mm_train.signalled import SEED

Losses = Callable[[Path], list[float]]
EVERY = 4
"""Steps between two checkpoints."""
KEPT = {"checkpoint.every_steps": EVERY, "checkpoint.keep_last": 9}
PAUSE = 0.02
"""Seconds by which a step is longer, so that a test can aim."""


@pytest.fixture
def steps(small: TrainSpec) -> TrainSpec:
    """Twenty steps."""
    return replace(small, KEPT)


@pytest.fixture(scope="module")
def whole(runs_dir: Path) -> Path:
    """The same run that nothing interrupts, on one process."""
    spec = replace(tiny_high.SPEC, {**SMALL, **KEPT, "name": "whole"})
    return mm_train.train(spec, RunOptions(runs_dir=runs_dir)).run_dir


def slowly(rank: int) -> None:
    """Has each step take a little longer."""
    draw = losses.draw

    def later(*arguments: object) -> object:
        time.sleep(PAUSE)
        return draw(*arguments)  # type: ignore[arg-type]

    losses.draw = later  # type: ignore[assignment]


def tensors_of(run_dir: Path) -> dict[str, bytes]:
    """The bits of all weights and moments of the last checkpoint."""
    last = run_dir / "checkpoints" / "step-00000020"
    found = {
        f"{file.parent.name}/{name}": tensor.numpy().tobytes()
        for file in last.rglob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert {name.partition("/")[0] for name in found} == {"model", "optimizer"}
    return found


def folder_of(spec: TrainSpec, options: RunOptions) -> Path:
    """The only run of a label."""
    (folder,) = (options.runs_dir / str(spec.name)).iterdir()
    return folder


def has_done(spec: TrainSpec, options: RunOptions, steps: int) -> bool:
    """Whether the run of a label has logged so many steps."""
    files = [*(options.runs_dir / str(spec.name)).glob("*/metrics.jsonl")]
    return bool(files) and files[0].read_bytes().count(b"\n") >= steps


@pytest.mark.parametrize(
    ("how", "beside"),
    [
        (signal.SIGKILL, False),
        (signal.SIGUSR1, False),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_ends_by_a_signal_goes_on_to_the_same_bits(
    how: signal.Signals,
    beside: bool,
    steps: TrainSpec,
    whole: Path,
    options: RunOptions,
    losses_of: Losses,
    tmp_path: Path,
) -> None:
    """Also where checkpoints are written beside the steps: their states are those of `whole`, which waits."""
    steps = replace(steps, {"name": f"{how.name}_{beside}", "checkpoint.asynchronous": beside})
    arguments = ("--runs-dir", options.runs_dir, "--resume", "auto")
    dice = random.Random(f"{SEED}{how}")
    step, after = dice.randrange(1, 19), dice.uniform(0, 2 * PAUSE)
    print(f"SIGNAL_SEED={SEED}: {how.name} {after:.3f} s after step {step}")
    with launched(steps, tmp_path, *arguments, before=slowly) as (child,):
        wait_for(lambda: has_done(steps, options, step))
        time.sleep(after)
        os.kill(child.pid, how)
        sent = time.monotonic()
        status, output, _ = child.end()
    assert status == 128 + how
    folder = folder_of(steps, options)
    if how != signal.SIGKILL:
        print(f"left after {time.monotonic() - sent:.2f} s")
        assert attach(folder).record.status is RunStatus.INTERRUPTED
        done = len(losses_of(folder))
        assert f"stopped after step {done}; to go on, add --resume {folder}" in output.replace("\n", " ")
        assert states.step_folder(folder / "checkpoints", done).is_dir()
    with launched(steps, tmp_path, *arguments) as (child,):
        assert child.end()[0] == 0
    assert folder_of(steps, options) == folder
    assert losses_of(folder) == losses_of(whole)
    assert tensors_of(folder) == tensors_of(whole)


def test_a_stop_that_takes_longer_than_launchers_wait_is_said_once() -> None:
    grace = Grace()
    grace.step(20)
    grace.step(10)
    assert grace.late(GRACE_SECONDS - 21) == ""
    assert "--shutdown-timeout 90 and" in grace.late(25)
    assert grace.late(45) == ""


def test_auto_goes_on_with_what_was_begun_and_makes_what_was_not(
    steps: TrainSpec, options: RunOptions
) -> None:
    auto = attrs.evolve(options, resume="auto")
    brief = replace(steps, {"schedule.steps": 3, "schedule.warmup_steps": 1})
    with pytest.raises(StoppedEarly) as stopped:
        mm_train.train(brief, attrs.evolve(auto, stop_after=1))
    first = stopped.value.run_dir
    # Another exact spec, though its result would be the same, is another run.
    other = mm_train.train(replace(brief, "checkpoint.every_steps", 2), auto).run_dir
    assert other != first
    assert mm_train.train(brief, auto).run_dir == first
    again = mm_train.train(brief, auto).run_dir
    assert again not in (first, other)


def test_after_its_end_a_launch_that_starts_again_trains_nothing_anew(
    steps: TrainSpec, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = attrs.evolve(options, resume="auto")
    brief = replace(steps, {"schedule.steps": 2, "schedule.warmup_steps": 1})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "launch")
    ended = mm_train.train(brief, auto).run_dir
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert mm_train.train(brief, auto).run_dir == ended
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert mm_train.train(brief, auto).run_dir != ended


def test_the_ledger_tells_all_time_of_a_run_that_was_killed(
    steps: TrainSpec, options: RunOptions, tmp_path: Path
) -> None:
    def saves_slowly(rank: int) -> None:
        slowly(rank)
        save = states.save

        def later(*arguments: object) -> object:
            time.sleep(0.1)
            return save(*arguments)  # type: ignore[arg-type]

        states.save = later  # type: ignore[assignment]

    arguments = ("--runs-dir", options.runs_dir, "--resume", "auto")
    started = time.time()
    with launched(steps, tmp_path, *arguments, before=saves_slowly) as (child,):
        wait_for(lambda: has_done(steps, options, 2 * EVERY + 3))
        os.kill(child.pid, signal.SIGKILL)
        child.status()
        killed = time.time()
        time.sleep(0.8)
    with launched(steps, tmp_path, *arguments, before=saves_slowly) as (child,):
        status, output, _ = child.end()
        assert status == 0
    passed = time.time() - started
    account = account_of(folder_of(steps, options))
    assert account is not None
    print(f"{passed:.2f} s passed, {killed - started:.2f} s up to the kill: {account}")
    assert "the run took " in output and " s in 2 processes: training " in output
    assert account.processes == 2
    assert account.whole == pytest.approx(passed, abs=1)
    assert account.seconds.keys() == PARTS.keys()
    assert account.seconds["down"] == pytest.approx(0.8, abs=0.5)
    assert account.seconds["checkpoints"] > 0.1 * 5
    assert account.seconds["training"] > PAUSE * 20
    assert PAUSE * 3 < account.seconds["lost"] < killed - started

"""Runs that are killed or asked to stop, and what continues them."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.index import open_index
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint
from tests.mm_train.signalled import KINDS, SEED

Losses = Callable[[Path], list[float]]
Experiment = Callable[[TrainSpec], Path]

STEPS = 150
"""More than pass before the signal."""


@pytest.fixture
def long(small: TrainSpec) -> TrainSpec:
    return replace(small, {"schedule.steps": STEPS, "checkpoint.every_steps": 15})


def started(file: Path, runs_dir: Path, name: str) -> tuple[subprocess.Popen[str], Path]:
    """Starts a training and waits until it has logged some steps after its first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, str(file), "--runs-dir", str(runs_dir)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        for metrics in (runs_dir / name).glob("*/metrics.jsonl"):
            if len(metrics.read_text().splitlines()) > 20:
                return process, metrics.parent
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


def test_a_killed_run_continues_bit_for_bit(
    long: TrainSpec, options: RunOptions, losses_of: Losses, experiment: Experiment
) -> None:
    process, folder = started(experiment(long), options.runs_dir, long.name)
    process.kill()
    process.communicate(timeout=60)
    done = len(losses_of(folder))
    assert 20 < done < STEPS
    assert open_index(options.runs_dir).list(name=long.name)[0].status is RunStatus.INTERRUPTED

    command = [sys.executable, str(experiment(long)), "--runs-dir", str(options.runs_dir)]
    again = subprocess.run([*command, "--resume", "latest"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stdout
    assert Path(again.stdout.splitlines()[-1]).parent.samefile(folder)

    whole = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert whole.returncode == 0, whole.stderr
    expected = Path(whole.stdout.splitlines()[-1]).parent
    assert not expected.samefile(folder)
    assert losses_of(folder) == losses_of(expected)


def test_a_run_that_is_asked_to_stop_saves_its_state_first(
    long: TrainSpec, options: RunOptions, losses_of: Losses, experiment: Experiment
) -> None:
    """Which signal is drawn anew every day."""
    process, folder = started(experiment(long), options.runs_dir, long.name)
    number = random.Random(SEED).choice(KINDS)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "interrupted\n")
    assert "--resume" in output
    assert attach(folder).record.status is RunStatus.INTERRUPTED
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    done = checkpoint.read_state(last)["step"]
    assert done == len(losses_of(folder)) < STEPS

    result = mm_train.train(long, attrs.evolve(options, resume=str(folder)))
    assert result.run_dir == folder
    assert len(losses_of(folder)) == STEPS

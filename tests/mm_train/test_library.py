"""Training from Python: a step at a time, with a function that is told of each, and with wrong arguments."""

import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import mm_train
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint

Metrics = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def six(small: TrainSpec) -> TrainSpec:
    return replace(small, {"schedule.steps": 6, "schedule.warmup_steps": 1})


def only_run(spec: TrainSpec, options: RunOptions) -> Path:
    (folder,) = (options.runs_dir / str(spec.name)).iterdir()
    return folder


def test_an_iterator_that_is_left_early_saves_its_state_and_the_run_goes_on_bit_for_bit(
    six: TrainSpec, options: RunOptions, metrics_of: Metrics
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    running = mm_train.steps(six, options)
    assert not (options.runs_dir / six.name).exists()
    given = []
    for step in running:
        given.append(step)
        if step.step == 2:
            break
    running.close()
    folder = only_run(six, options)
    record = attach(folder).record
    assert record.status is RunStatus.INTERRUPTED
    assert record.reason == "StoppedEarly: stopped after step 2 of 6, as asked; it can be resumed"
    assert signal.getsignal(signal.SIGTERM) is handler
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    assert checkpoint.read_state(last)["step"] == 2
    assert [attrs.asdict(step) for step in given] == metrics_of(folder)

    given += mm_train.steps(six, attrs.evolve(options, resume=str(folder)))
    assert [step.step for step in given] == [1, 2, 3, 4, 5, 6]
    assert [attrs.asdict(step) for step in given] == metrics_of(folder)
    assert attach(folder).record.status is RunStatus.FINISHED

    whole: list[mm_train.Step] = []
    result = mm_train.train(six, options, on_step=whole.append)
    assert [(one.loss, one.grad_norm, one.lr) for one in whole] == [
        (one.loss, one.grad_norm, one.lr) for one in given
    ]
    assert result.loss == sum(one.loss for one in whole) / 6


def test_leaving_after_the_last_step_ends_the_run(six: TrainSpec, options: RunOptions) -> None:
    for step in mm_train.steps(six, options):
        if step.step == 6:
            break
    folder = only_run(six, options)
    assert attach(folder).record.status is RunStatus.FINISHED
    assert (folder / "result.json").exists()


def test_an_error_of_the_function_that_is_told_is_raised_after_the_state_was_saved(
    six: TrainSpec, options: RunOptions
) -> None:
    def told(step: mm_train.Step) -> None:
        if step.step == 3:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        mm_train.train(six, options, on_step=told)
    folder = only_run(six, options)
    assert attach(folder).record.status is RunStatus.INTERRUPTED
    assert mm_train.train(six, attrs.evolve(options, resume=str(folder))).steps == 6


def test_a_signal_while_the_caller_has_a_step_stops_the_run_when_the_next_is_asked_for(
    six: TrainSpec, options: RunOptions
) -> None:
    running = mm_train.steps(six, options)
    next(running)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        next(running)
    folder = only_run(six, options)
    assert attach(folder).record.status is RunStatus.INTERRUPTED
    assert checkpoint.latest(folder / "checkpoints") == folder / "checkpoints" / "step-00000001"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"spec": "tiny_high.py"}, "spec: expected TrainSpec, got str"),
        ({"options": {"resume": "latest"}}, "options: expected RunOptions, got dict"),
        ({"on_step": "print"}, "on_step: expected a function, got str"),
    ],
)
def test_a_wrong_argument_is_a_type_error_that_says_what_was_expected(
    arguments: dict[str, Any], line: str, six: TrainSpec
) -> None:
    with pytest.raises(TypeError) as raised:
        mm_train.train(**{"spec": six, **arguments})
    assert str(raised.value) == line
    if "on_step" not in arguments:
        # At the call, not only when the first step is asked for.
        with pytest.raises(TypeError) as raised:
            mm_train.steps(**{"spec": six, **arguments})
        assert str(raised.value) == line


def test_importing_the_package_imports_no_torch_and_dir_and_help_show_it() -> None:
    lines = "import sys, mm_train; names = dir(mm_train); print('torch' in sys.modules); print(*names)"
    shown = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    loaded, names = shown.stdout.splitlines()
    assert loaded == "False"
    assert {"Step", "TrainResult", "steps", "train"} <= set(names.split())
    command = [sys.executable, "-c", "import mm_train; help(mm_train)"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in dir(mm_train):
        assert inspect.getdoc(getattr(mm_train, name))
        assert name in page
    assert "Closing the iterator" in page

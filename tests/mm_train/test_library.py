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
import torch

import mm_data
import mm_train
from mm_config import StoppedEarly, UserError, replace
from mm_config.options.run_options import RunOptions, Threads
from mm_config.runs.folder import attach
from mm_config.runs.record import RunStatus
from mm_config.specs.datasets import ManifestSpec
from mm_config.specs.train import TrainSpec
from mm_models import checkpoint

Metrics = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def six(small: TrainSpec) -> TrainSpec:
    return replace(small, {"schedule.steps": 6, "schedule.warmup_steps": 1})


def only_run(spec: TrainSpec, options: RunOptions) -> Path:
    (folder,) = (options.runs_dir / str(spec.name)).iterdir()
    return folder


FIELDS = (
    "step",
    "loss",
    "lr",
    "grad_norm",
    "samples_per_second",
    "data_wait_seconds",
    "step_seconds",
)


def told(steps: list[mm_train.Step]) -> list[dict[str, Any]]:
    return [{name: getattr(step, name) for name in FIELDS} for step in steps]


def logged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: line[name] for name in FIELDS} for line in lines]


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
    assert told(given) == logged(metrics_of(folder))

    given += mm_train.steps(six, attrs.evolve(options, resume=str(folder)))
    assert [step.step for step in given] == [1, 2, 3, 4, 5, 6]
    assert told(given) == logged(metrics_of(folder))
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


def test_a_finished_run_of_an_equal_spec_is_the_result_where_that_is_asked_for(
    six: TrainSpec, options: RunOptions
) -> None:
    if_needed, spec = attrs.evolve(options, if_needed=True), replace(six, "seed", 7)
    told: list[mm_train.Step] = []
    first = mm_train.train(spec, if_needed, told.append)
    assert len(told) == 6
    assert mm_train.train(spec, if_needed, told.append) == first
    assert list(mm_train.steps(spec, if_needed)) == []
    assert len(told) == 6
    assert mm_train.train(spec, options).run_dir != first.run_dir


def test_data_lies_where_commands_find_it(
    six: TrainSpec, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mm_data.prepare(six.data.dataset, cache_dir=options.cache_dir)
    (tmp_path / "locations.yaml").write_text(f"my clips: {dataset.root}\n")
    spec = replace(six, {"data.dataset": ManifestSpec(name="my clips"), "schedule.steps": 1})
    with pytest.raises(UserError, match="no location is named 'my clips'"):
        mm_train.train(spec, options)
    monkeypatch.chdir(tmp_path)
    assert mm_train.train(spec).run_dir.relative_to("runs")


def test_what_a_training_could_not_heed_or_find_is_one_line(six: TrainSpec, options: RunOptions) -> None:
    with pytest.raises(UserError, match=r"^options\.requests: a training makes no videos$"):
        mm_train.steps(six, attrs.evolve(options, requests=()))
    unnamed = replace(six, "name", "")
    with pytest.raises(UserError) as raised:
        mm_train.train(unnamed, attrs.evolve(options, resume="nope"))
    assert str(raised.value) == f"options.resume: no run 'nope' of 'train' in {options.runs_dir}"


def test_a_training_computes_on_the_threads_that_its_options_say(six: TrainSpec, options: RunOptions) -> None:
    before = torch.get_num_threads()
    on_three = attrs.evolve(options, threads=Threads(3, 3), stop_after=1)
    seen: list[int] = []
    with pytest.raises(StoppedEarly):
        mm_train.train(six, on_three, lambda step: seen.append(torch.get_num_threads()))
    assert (seen, torch.get_num_threads()) == ([3], before)


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

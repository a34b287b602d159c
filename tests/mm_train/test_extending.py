"""`--extend RUN`: a training goes on in a run of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import mm_train
from mm_config import load, replace
from mm_config.cli.main import main
from mm_config.options.run_options import RunOptions
from mm_config.specs import Decay, StartMode, TrainedBy, TrainSpec

FLAT = {"schedule.steps": 2, "schedule.warmup_steps": 1, "schedule.decay": Decay.CONSTANT}


def command(runs_dir: Path, *words: str) -> list[str]:
    return ["experiments/tiny_high.py", "--runs-dir", str(runs_dir), *words]


def test_a_run_of_its_own_goes_on_where_another_ended(
    small: TrainSpec,
    options: RunOptions,
    losses_of: Callable[[Path], list[float]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = replace(small, FLAT)
    before = mm_train.train(spec, options)
    untouched = sorted(before.run_dir.rglob("*"))
    # The file says something else by now; what counts is what the run was of.
    edited = replace(spec, {"optim.lr": 1.0})
    outcome = main(edited, command(options.runs_dir, "--extend", str(before.run_dir), "--spec.steps", "4"))
    assert "has lost" not in "".join(capsys.readouterr())
    assert outcome is not None and outcome.run_dir != before.run_dir
    whole = mm_train.train(replace(spec, {"schedule.steps": 4, "name": "whole"}), options)
    assert losses_of(outcome.run_dir) == losses_of(whole.run_dir)[2:]
    stored = load(outcome.run_dir / "spec.json")
    expected = {"start_from": TrainedBy(spec=spec), "start_mode": StartMode.EXACT, "schedule.steps": 4}
    assert stored == replace(spec, expected)
    assert sorted(before.run_dir.rglob("*")) == untouched
    inputs = json.loads((outcome.run_dir / "inputs.json").read_text())["inputs"]
    assert inputs["spec.start_from"]["details"]["run_dir"] == str(before.run_dir.absolute())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "spec.schedule.steps: is 2, but the training that goes on has made 2; at least 3"),
        (("--spec.steps", "3", "--spec.seed", "7"), "spec.start_from.spec.seed: was trained with 0"),
    ],
)
def test_what_can_not_go_on_is_refused(
    words: tuple[str, ...],
    said: str,
    small: TrainSpec,
    options: RunOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = mm_train.train(replace(small, FLAT), options)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(small, command(options.runs_dir, "--extend", str(before.run_dir), *words))
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and said in line


def test_a_run_that_has_not_finished_is_resumed_instead(
    small: TrainSpec, options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = mm_train.steps(replace(small, FLAT), options)
    next(steps)
    steps.close()
    (folder,) = (options.runs_dir / small.name).iterdir()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(small, command(options.runs_dir, "--extend", str(folder), "--spec.steps", "4"))
    assert ended.value.code == 2 and "has not finished; go on with it by --resume" in capsys.readouterr().err

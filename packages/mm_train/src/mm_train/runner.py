"""Runs a training spec for the command line, and says what came out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mm_config.console import say, table
from mm_config.identity import spec_hash
from mm_config.options import RunOptions, RunOutcome
from mm_config.specs.train import TrainSpec
from mm_train.training import TrainResult, train


def run(spec: TrainSpec, options: RunOptions) -> RunOutcome:
    """Trains and reports; the runner of `train` specs.

    Raises:
        UserError: As `mm_train.train`.
    """
    result = train(spec, options)
    _report(spec, options, result)
    return RunOutcome(run_dir=result.run_dir, result_path=result.result_path)


def _report(spec: TrainSpec, options: RunOptions, result: TrainResult) -> None:
    rows = [
        ("run folder", _near(result.run_dir)),
        ("spec hash", spec_hash(spec)[:12]),
        ("loss, last steps", f"{result.loss:.4f}"),
        ("checkpoint", _near(result.checkpoint)),
        ("time", f"{result.seconds:.0f} s"),
        ("peak memory", f"{result.peak_gib:.2f} GiB"),
    ]
    if result.quarantined:
        rows.append(("unreadable clips", f"{result.quarantined}, see quarantine.jsonl"))
    table(f"Trained {spec.name}".rstrip(), rows)
    say("Next, for example:")
    for command in _next_commands(spec, options):
        say(f"  {command}")


def _next_commands(spec: TrainSpec, options: RunOptions) -> Iterator[str]:
    elsewhere = "" if options.runs_dir == RunOptions().runs_dir else f" --runs-dir {_near(options.runs_dir)}"
    digits = spec_hash(spec)[:12]
    yield f"mm show {digits}{elsewhere}"
    # A training that another experiment had built is not what that experiment's file would run.
    if options.argv and Path(options.argv[0]).name == f"{spec.name}.py":
        file = _near(Path(options.argv[0]))
        yield f"mm diff {digits} {file} --spec.steps {2 * spec.schedule.steps}{elsewhere}"
        yield f"python {file} --spec.lr {spec.optim.lr / 2:g}{elsewhere}"


def _near(path: Path) -> str:
    """A path as it is typed from the current folder where it lies below it, else absolute."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)

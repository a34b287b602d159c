"""Runs a training spec for the command line, and says what came out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_config.console import say, shell_command, table, typed_path
from mm_config.options import RunOptions, RunOutcome
from mm_config.schema import spec_hash
from mm_config.specs import TrainSpec
from mm_train.results import TrainResult
from mm_train.training import train


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
        ("run folder", typed_path(result.run_dir)),
        ("spec hash", spec_hash(spec)[:12]),
        ("loss, last steps", "unknown" if result.loss is None else f"{result.loss:.4f}"),
        ("checkpoint", typed_path(result.checkpoint)),
        ("time", f"{result.seconds:.0f} s"),
        ("peak memory", f"{result.peak_gib:.2f} GiB"),
    ]
    if result.best_checkpoint is not None:
        rows.insert(4, ("best on held-out", typed_path(result.best_checkpoint)))
    if result.quarantined:
        rows.append(("unreadable clips", f"{result.quarantined}, see quarantine.jsonl"))
    table(f"Trained {spec.name}".rstrip(), rows)
    say("Next, for example:")
    for line in _next_commands(spec, options):
        say(f"  {line}")


def _next_commands(spec: TrainSpec, options: RunOptions) -> Iterator[str]:
    digits = spec_hash(spec)[:12]
    yield shell_command(options, "mm", "show", digits)
    # A training that another experiment had built is not what that experiment's file would run.
    if options.argv and Path(options.argv[0]).name == f"{spec.name}.py":
        file = typed_path(Path(options.argv[0]))
        yield shell_command(options, "mm", "diff", digits, file, "--spec.steps", str(2 * spec.schedule.steps))
        yield shell_command(options, "python", file, "--spec.lr", f"{spec.optim.lr / 2:g}")

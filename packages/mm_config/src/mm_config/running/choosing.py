"""Which run's weights are taken, where several finished runs made them, and what they are as an input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm_config.console.output import passing_over, say
from mm_config.content.inputs import Input, orders_of, trained_by_digest
from mm_config.options.run_options import RunOptions
from mm_config.running.contents import changes_since, inputs_here
from mm_config.runs.index import open_index
from mm_config.runs.inputs import read_inputs
from mm_config.runs.record import STATUS_FILE, read_result
from mm_config.schema.errors import UserError
from mm_config.schema.identity import spec_hash
from mm_config.schema.root import RootSpec
from mm_config.stored.json_files import read_json

MANIFEST_FILE = "manifest.json"
"""Written last into a checkpoint folder: a folder that has it is whole."""
AVERAGE = "average"
"""What of a checkpoint holds the moving average: its folder inside names those weights."""
_EXPERTS = {"spec.high_noise": ("high_noise", "single"), "spec.low_noise": ("low_noise",)}
"""What results call the networks that fields name."""
_AsRead = Mapping[str, tuple[str, str | None]]
"""Digest and order of each input, by path."""


def chosen_checkpoint(trained: RootSpec, options: RunOptions, path: str) -> Path | None:
    """The final checkpoint of a finished run of a training; None where none has it.

    Where several have it, that of the run which the repeated run took; else of the newest whose inputs are
    what they are today, in today's order of samples; else of the newest. Which one and why is said, but where
    all were made of the same in the same order. Runs with damaged files are passed over, which is said.

    Args:
        trained: The training.
        options: Where runs are, and which run is repeated.
        path: Canonical path of the field that asks for it.
    """
    index = open_index(options.runs_dir)
    found: dict[Path, Path] = {}
    made: dict[Path, _AsRead | None] = {}
    for record in index.find_finished(spec_hash(trained)):
        folder = index.folder(record)
        with passing_over():
            if (checkpoint := final_checkpoint(folder)) is not None:
                made[folder] = _as_read(read_inputs(folder))
                found[folder] = checkpoint
    if options.repeats is not None and (named := _taken_by(options.repeats, path)) is not None:
        for folder, checkpoint in found.items():
            if folder.parts[-2:] == named.parts[-2:]:
                return checkpoint
        say(f"{path}: the weights that {options.repeats} took are gone ({named})")
    if not found:
        return None
    newest = next(iter(found))
    if len(found) == 1 or (made[newest] and all(one == made[newest] for one in made.values())):
        return found[newest]
    taken, why = _of_today(trained, options, made)
    say(f"{path}: {len(found)} finished runs made these weights; {taken} is taken, {why}")
    return found[taken]


def final_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint that a run's result names, where it is whole; an earlier step is no substitute.

    Raises:
        UserError: The result can't be read, or names one outside the run folder.
    """
    named = read_result(run_dir).get("checkpoint")
    return run_dir / named if named and (run_dir / named / MANIFEST_FILE).is_file() else None


def trained_input(checkpoint: Path) -> Input | None:
    """What weights are that a run made, by what it was made of; None where that is not recorded.

    Args:
        checkpoint: As `chosen_checkpoint` gives it, or the average inside.
    """
    run_dir = run_dir_of(checkpoint)
    made_of = read_json(run_dir / STATUS_FILE).get("made_of")
    if made_of is None:
        return None
    taken: dict[str, Any] = {
        "made_of": made_of,
        "step": read_result(run_dir).get("steps", 0),
        "weights": AVERAGE if checkpoint.name == AVERAGE else "last",
    }
    orders = orders_of(read_inputs(run_dir) or {})
    digest = trained_by_digest(made_of, orders, taken["step"], taken["weights"])
    return Input(digest=digest, kind="trained-by", details=taken_from(checkpoint) | taken)


def taken_from(checkpoint: Path) -> dict[str, Any]:
    """The run that weights were taken from, as details of an input."""
    run_dir = run_dir_of(checkpoint)
    return {"run": "/".join(run_dir.parts[-2:]), "run_dir": str(run_dir), "path": str(checkpoint.absolute())}


def run_dir_of(checkpoint: Path) -> Path:
    """The run whose checkpoint, or the average inside, lies there."""
    return checkpoint.absolute().parents[2 if checkpoint.name == AVERAGE else 1]


def _of_today(
    trained: RootSpec, options: RunOptions, made: Mapping[Path, _AsRead | None]
) -> tuple[Path, str]:
    """The newest run whose inputs are what they are today, else the newest, and why it is that one."""
    newest = next(iter(made))
    if not any(made.values()):
        return newest, "the newest: what they were made of is not recorded"
    try:
        inputs = inputs_here(trained, options) or {}
    except UserError as error:
        return newest, f"the newest: what their inputs are today can't be told ({error.problems[0]})"
    today = _as_read(inputs)
    if (same := next((folder for folder, then in made.items() if then == today), None)) is not None:
        return same, "the newest whose inputs are what they are today"
    return (
        newest,
        f"the newest: none was made of today's inputs ({'; '.join(changes_since(newest, inputs, options))})",
    )


def _as_read(inputs: Mapping[str, Input] | None) -> _AsRead | None:
    """What a run's result depends on by path; None where its inputs are not recorded."""
    return None if inputs is None else {path: one.as_read for path, one in inputs.items()}


def _taken_by(run_dir: Path, path: str) -> Path | None:
    """The folder of the run whose weights a stored run took for a field."""
    inputs = read_inputs(run_dir) or {}
    if path in inputs:
        taken = inputs[path].details.get("run_dir")
        return Path(taken) if taken else None
    experts: dict[str, dict[str, Any]] = read_result(run_dir).get("experts", {})
    named = (experts[name].get("run_dir") for name in _EXPERTS.get(path, ()) if name in experts)
    return next((Path(one) for one in named if one), None)

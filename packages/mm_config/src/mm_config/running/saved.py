"""Checkpoints of trainings that a spec names by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mm_config.options.run_options import RunOptions
from mm_config.running.choosing import MANIFEST_FILE
from mm_config.runs.index import open_index
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import JSON, encoded
from mm_config.specs.weights import SavedWeights
from mm_config.stored.json_files import read_json


def checkpoint_digest(folder: Path) -> str:
    """The 64 hex digits that name a checkpoint: sha256 of the JCS of its files' names, sizes and sha256.

    They are those that its manifest lists; whoever reads a file holds it against that.

    Raises:
        UserError: The manifest is missing or can't be read.
    """
    path = folder / MANIFEST_FILE
    try:
        listed = read_json(path)["files"]
        files: JSON = {name: [entry["bytes"], entry["sha256"]] for name, entry in listed.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(Problem(str(path), "is no manifest of a checkpoint")) from error
    content: JSON = {"v": 1, "kind": "checkpoint", "files": files}
    return hashlib.sha256(encoded(content)).hexdigest()


def saved_checkpoint(weights: SavedWeights, options: RunOptions, path: str) -> Path:
    """Where a checkpoint lies: at the path of the spec, or among those of all runs.

    Args:
        weights: What the spec says.
        options: Where runs are.
        path: Canonical path of the field.

    Raises:
        UserError: Another checkpoint lies at the path, or none of the runs has it.
    """
    if weights.path is None:
        for folder in _of_all_runs(options.runs_dir):
            if _has(folder, weights.digest):
                return folder
        raise UserError(
            Problem(path, f"no run in {options.runs_dir} has the checkpoint {weights.digest[:12]}...")
        )
    folder = Path(weights.path)
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(Problem(f"{path}.path", f"{folder} is no checkpoint of a training"))
    if (found := checkpoint_digest(folder)) != weights.digest:
        raise UserError(Problem(f"{path}.digest", f"is {weights.digest}, but {folder} has {found}"))
    return folder


def _of_all_runs(runs_dir: Path) -> Iterator[Path]:
    index = open_index(runs_dir)
    for record in index.list():
        yield from sorted((index.folder(record) / "checkpoints").glob("step-*/"), reverse=True)


def _has(folder: Path, digest: str) -> bool:
    try:
        return checkpoint_digest(folder) == digest
    except UserError:
        return False  # What can't be read is not it; others may be.

"""Writes weights of one kind as another; every value stays as it was, unless a dtype is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mm_config import files
from mm_config.console import progress
from mm_config.errors import Problem, UserError
from mm_config.specs.kinds import ModelSpec
from mm_models import checkpoint
from mm_models.weights.differences import compare
from mm_models.weights.opening import CHECKPOINT, Weights, open_weights
from mm_models.weights.published import (
    families,
    guess,
    nearest_family,
    published_model,
    published_of,
)
from mm_models.weights.writing import STEM, Item, write_json, write_release, write_sharded

KINDS = ("diffusers", "wan", "mindspeed", "dcp")
SHARD_BYTES = 10**10


def convert(
    source: Path,
    out: Path,
    kind: str = "diffusers",
    *,
    shard_bytes: int = SHARD_BYTES,
    dtype: torch.dtype | None = None,
    spec: ModelSpec | None = None,
) -> Weights:
    """Writes weights as another kind, beside their place first and renamed when complete.

    Args:
        source: Weights of any kind that `open_weights` knows.
        out: A folder that doesn't exist; its parent does.
        kind: One of KINDS.
        shard_bytes: The largest file of safetensors.
        dtype: What values are cast to; None leaves each tensor's own.
        spec: Their network; otherwise the spec of the run that made them, or read off their shapes.

    Returns:
        What was read.

    Raises:
        UserError: The source can't be read or is not whole, the place is taken, or the disk too small;
            nothing is left behind.
    """
    if os.path.lexists(out):
        raise UserError(Problem(str(out), "exists already; nothing is overwritten"))
    if not out.absolute().parent.is_dir():
        raise UserError(Problem(str(out), f"the folder {str(out.parent)!r} does not exist"))
    weights = open_weights(source)
    found = guess(weights.shapes, weights.config)
    model = spec or _spec_of_run(weights)
    if model is None:
        model = found.spec if found else families()[nearest_family(weights.shapes)]
    wanted = model.parameter_shapes()
    if differing := compare(weights.tensors, wanted):
        raise UserError(differing.problems(str(source)))
    if found is not None and found.heads == "unknown" and found.spec is model:
        message = "its shapes don't tell the number of attention heads; name a spec that has them by --spec"
        raise UserError(Problem(str(source), message))
    network = published_of(model)
    dialect = network.dialects[0] if kind == "dcp" else network.dialect(kind)
    if dialect is None:
        known = ", ".join((*(one.name for one in network.dialects), "dcp"))
        raise UserError(
            Problem(str(source), f"{network.about} has no weights of kind {kind}; it has {known}")
        )
    items = [
        Item(dialect.theirs(name), weights.tensors[name], dtype or weights.tensors[name].dtype)
        for name in wanted
    ]
    _stage(weights, out, kind, items, model, shard_bytes)
    return weights


def _stage(
    weights: Weights, out: Path, kind: str, items: Sequence[Item], model: ModelSpec, shard_bytes: int
) -> None:
    size = sum(item.bytes for item in items)
    if (free := shutil.disk_usage(out.absolute().parent).free) < size:
        raise UserError(Problem(str(out), f"needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"))
    staged = out.with_name(out.name + ".tmp")
    try:
        staged.mkdir()
    except FileExistsError as error:
        message = "exists: another conversion writes it, or one that was interrupted; remove it then"
        raise UserError(Problem(str(staged), message)) from error
    except OSError as error:
        raise UserError(Problem(str(staged), f"can't be made: {error.strerror}")) from error
    try:
        with progress(f"write {out.name}", len(items), unit="tensor", every=max(1, len(items) // 10)) as bar:
            _write(weights, staged, kind, items, model, shard_bytes, bar.advance)
        if os.path.lexists(out):
            raise UserError(
                Problem(str(out), "was made by another program meanwhile; nothing is overwritten")
            )
        staged.rename(out)
    except OSError as error:
        raise UserError(Problem(str(out), f"can't be written: {error.strerror or error}")) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write(
    weights: Weights,
    folder: Path,
    kind: str,
    items: Sequence[Item],
    model: ModelSpec,
    shard_bytes: int,
    tick: Callable[[], None],
) -> None:
    match kind:
        case "diffusers" | "wan":
            write_sharded(folder, items, shard_bytes, STEM, tick)
            write_json(folder / "config.json", published_of(model).configs[kind](model))
        case "mindspeed":
            write_release(folder, items, tick)
        case "dcp":
            (folder / "model").mkdir()
            shards = write_sharded(folder / "model", items, shard_bytes, "model", tick)
            state: dict[str, Any] = {
                "converted": {"kind": weights.kind, "layout": weights.layout, "path": str(weights.path)},
                "config": published_of(model).configs["diffusers"](model),
            }
            written = {f"model/{name}": entry for name, entry in shards.items()}
            written[checkpoint.STATE] = write_json(folder / checkpoint.STATE, state)
            write_json(folder / checkpoint.MANIFEST, {"v": 1, "files": written})
        case _:
            raise AssertionError(f"{kind} is no kind of weights")


def _spec_of_run(weights: Weights) -> ModelSpec | None:
    """The network of the run whose checkpoint this is; None for anything else."""
    stored = weights.path.absolute().parent.parent / "spec.json"
    if weights.layout != CHECKPOINT or weights.config or not stored.is_file():
        return None
    return published_model(files.load(stored), str(stored))

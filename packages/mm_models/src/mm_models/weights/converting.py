"""Writes weights of one kind as another; every value stays as it was, unless a dtype is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mm_config.console import progress
from mm_config.schema import Problem, UserError
from mm_config.specs import ModelSpec
from mm_models import checkpoint
from mm_models.weights.differences import compare
from mm_models.weights.opening import (
    Weights,
    architecture_of,
    contradictions,
    open_weights,
    spec_of_run,
)
from mm_models.weights.published import families, nearest_family, published_of
from mm_models.weights.staging import require_free, staged
from mm_models.weights.writing import STEM, Item, write_json, write_release, write_sharded

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
        kind: A dialect of the network's, such as `wan`, or `dcp` for our checkpoint.
        shard_bytes: The largest file of safetensors.
        dtype: What values are cast to; None leaves each tensor's own.
        spec: Their network; otherwise the spec of the run that made them, or read off their shapes.

    Returns:
        What was read.

    Raises:
        UserError: The source can't be read or is not whole, the place is taken, or the disk too small;
            nothing is left behind.
    """
    require_free(out)
    weights = open_weights(source)
    found = architecture_of(weights)
    model = spec or spec_of_run(weights)
    if model is None:
        model = found.spec if found else families()[nearest_family(weights.shapes)]
    wanted = model.parameter_shapes()
    if differing := compare(weights.tensors, wanted, settings=contradictions(found, model)):
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
    size = sum(item.bytes for item in items)
    if (free := shutil.disk_usage(out.absolute().parent).free) < size:
        raise UserError(Problem(str(out), f"needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"))
    bar = progress(f"write {out.name}", len(items), unit="tensor", every=max(1, len(items) // 10))
    with staged(out) as folder, bar as advancing:
        _write(weights, folder, kind, items, model, shard_bytes, advancing.advance)
    return weights


def _write(
    weights: Weights,
    folder: Path,
    kind: str,
    items: Sequence[Item],
    model: ModelSpec,
    shard_bytes: int,
    tick: Callable[[], None],
) -> None:
    network = published_of(model)
    match kind:
        case "mindspeed":
            write_release(folder, items, tick)
        case "dcp":
            (folder / "model").mkdir()
            shards = write_sharded(folder / "model", items, shard_bytes, "model", tick)
            state: dict[str, Any] = {
                "converted": {"kind": weights.kind, "layout": weights.layout, "path": str(weights.path)},
                "config": network.config(model),
            }
            written = {f"model/{name}": entry for name, entry in shards.items()}
            written[checkpoint.STATE] = write_json(folder / checkpoint.STATE, state)
            write_json(folder / checkpoint.MANIFEST, {"v": 1, "files": written})
        case _:
            write_sharded(folder, items, shard_bytes, STEM, tick)
            if (config := network.configs.get(kind)) is not None:
                write_json(folder / "config.json", config(model))

"""Writes weights of one kind as another; every value stays as it was, unless a dtype is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from mm_config.console import progress, say
from mm_config.schema import Problem, UserError, prefixed
from mm_models import checkpoint
from mm_models.manifest import write_manifest
from mm_models.weights.differences import compare
from mm_models.weights.opening import (
    Weights,
    architecture_of,
    contradictions,
    open_weights,
    spec_of_run,
)
from mm_models.weights.published import nearest_family
from mm_models.weights.staging import require_free, staged
from mm_models.weights.writing import Item, write_json, write_release, write_sharded

SHARD_BYTES = 10**10


def convert(
    source: Path,
    out: Path,
    kind: str = "diffusers",
    *,
    shard_bytes: int = SHARD_BYTES,
    dtype: torch.dtype | None = None,
    spec: object = None,
    heads: int | None = None,
    part: str | None = None,
) -> Weights:
    """Writes weights as another kind, beside their place first and renamed when complete.

    Args:
        source: Weights of any kind that `open_weights` knows.
        out: A folder that doesn't exist; its parent does.
        kind: A dialect of the network's, such as `wan`, or `dcp` for our checkpoint.
        shard_bytes: The largest file of safetensors.
        dtype: What values are cast to; None leaves each tensor's own.
        spec: Of their network, or of what has one; otherwise that of the run that made them, or read off
            their shapes.
        heads: The number of attention heads, where nothing else tells it.
        part: Which network is meant, as for `open_weights`.

    Returns:
        What was read.

    Raises:
        UserError: The source can't be read or is not whole, nothing tells its number of heads, the place is
            taken, or the disk too small; nothing is left behind.
    """
    require_free(out)
    weights = open_weights(source, part=part)
    network = weights.network
    dialect = network.dialects[0] if kind == "dcp" else network.dialect(kind)
    if dialect is None:
        known = ", ".join((*(one.name for one in network.dialects), "dcp"))
        raise UserError(
            Problem(str(source), f"{network.about} has no weights of kind {kind}; it has {known}")
        )
    model = _model_of(weights, spec, heads, is_told=kind == "dcp" or kind in network.configs)
    wanted = network.shapes(model)
    ours = dialect is network.dialects[0]  # Whose table lacks names of sizes that nobody has published.
    items = [
        Item(name if ours else dialect.theirs(name), stored, dtype or stored.dtype)
        for name, stored in ((name, weights.tensors[name]) for name in wanted)
    ]
    size = sum(item.bytes for item in items)
    if (free := shutil.disk_usage(out.absolute().parent).free) < size:
        raise UserError(Problem(str(out), f"needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"))
    bar = progress(f"write {out.name}", len(items), unit="tensor", every=max(1, len(items) // 10))
    with staged(out) as folder, bar as advancing:
        _write(weights, folder, kind, items, model, shard_bytes, advancing.advance)
    return weights


def _model_of(weights: Weights, spec: object, heads: int | None, is_told: bool) -> Any:
    """The spec that weights have, held against them; `is_told` where a configuration will say the heads."""
    network, where = weights.network, str(weights.path)
    model = spec_of_run(weights) if spec is None else network.part_of(spec, "--spec")
    found = architecture_of(weights)
    guessed = model is None
    if guessed:
        model = found.spec if found else network.families()[nearest_family(network, weights.shapes)]
    if heads is not None:
        if not hasattr(model, "num_attention_heads"):
            message = f"is for Wan's transformer; these are weights of {network.about}"
            raise UserError(Problem("--heads", message))
        model = attrs.evolve(model, num_attention_heads=heads)
        if problems := list(prefixed(model.problems(), "--heads")):
            raise UserError(problems)
    differing = compare(
        weights.tensors, network.shapes(model), settings=contradictions(weights, found, model)
    )
    if differing:
        raise UserError(differing.problems(where))
    if guessed and heads is None and is_told and found is not None:
        if found.heads == "unknown":
            raise UserError(Problem(where, f"its shapes don't tell the number of attention heads; {_ASK}"))
        if found.heads_of:
            say(f"heads     {model.num_attention_heads}: {found.heads_of}")
    return model


_ASK = "give it by --heads, or a spec that has it by --spec (published networks: hidden size / 128)"


def _write(
    weights: Weights,
    folder: Path,
    kind: str,
    items: Sequence[Item],
    model: Any,
    shard_bytes: int,
    tick: Callable[[], None],
) -> None:
    network = weights.network
    match kind:
        case "mindspeed":
            write_release(folder, items, tick)
        case "dcp":
            (folder / "model").mkdir()
            shards = write_sharded(folder / "model", items, shard_bytes, "model", tick)
            state: dict[str, Any] = {
                "converted": {"kind": weights.kind, "layout": weights.layout, "path": str(weights.path)},
                "config": network.config(model, beside=weights.config),
            }
            written = {f"model/{name}": entry for name, entry in shards.items()}
            written[checkpoint.STATE] = write_json(folder / checkpoint.STATE, state)
            write_manifest(folder, written)
        case _:
            write_sharded(folder, items, shard_bytes, network.stem, tick)
            if config := network.config(model, kind, weights.config):
                write_json(folder / "config.json", config)

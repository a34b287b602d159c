"""Writes adapters as diffusers, PEFT and tools around the original Wan code do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mm_config.durable import sync
from mm_config.schema import Problem, UserError
from mm_models.lora import configuration
from mm_models.lora.adapter import Adapter
from mm_models.lora.files import METADATA, NAMES
from mm_models.naming import first_names
from mm_models.weights.names import Dialect
from mm_models.weights.published import generating
from mm_models.weights.staging import staged
from mm_models.weights.writing import write_json

_DIFFUSERS, _PEFT = NAMES
_CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "lora_dropout": 0.0,
    "init_lora_weights": True,
    "inference_mode": True,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "use_dora": False,
}
"""What PEFT's file says beside rank, alpha and layers."""


_WAN = "lora.safetensors"
_WAN_ENDINGS = {".weight": ".diff", ".bias": ".diff_b", ".modulation": ".diff_m"}
"""How full differences are called, by the ends of their parameters' names in the original code."""


def save_adapters(experts: Mapping[str, Adapter], out: Path, style: str = "diffusers") -> None:
    """Writes adapters into a new folder, beside its place first and renamed when complete.

    diffusers: `pytorch_lora_weights.safetensors`, whose metadata hold ranks and alphas; both experts in one
    file under `transformer.` and `transformer_2.`. PEFT: `adapter_model.safetensors` and
    `adapter_config.json`. Wan: `lora.safetensors` with the original code's names of layers, `lora_down`,
    `lora_up` and `alpha`, which ComfyUI and others load. Both know no experts, so two get a folder each, by
    diffusers' names.

    Args:
        experts: By HIGH_NOISE and LOW_NOISE, as they were read.
        out: A folder that doesn't exist; its parent does.
        style: `diffusers`, `peft` or `wan`.

    Raises:
        UserError: The place is taken or can't be written, or an adapter holds what the style has no keys
            for: full differences, DoRA by columns, or DoRA or biases at some of its layers alone; nothing is
            left behind.
    """
    for adapter in experts.values():
        if problem := _unsaid_by_wan(adapter) if style == "wan" else _unsaid(adapter):
            raise UserError(Problem(str(out), f"the {style} style {problem}"))
    with staged(out) as folder:
        if style == "diffusers":
            _write_diffusers(folder, experts)
            return
        write = _write_wan if style == "wan" else _write_peft
        if len(experts) == 1:
            write(folder, next(iter(experts.values())))
            return
        for expert, adapter in experts.items():
            (folder / expert).mkdir()
            write(folder / expert, adapter)


def _write_diffusers(folder: Path, experts: Mapping[str, Adapter]) -> None:
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for expert, adapter in experts.items():
        tensors |= _named(adapter, f"{expert}.")
        config |= {f"{expert}.{name}": value for name, value in configuration.to_json(adapter).items()}
    metadata = {"format": "pt", METADATA: json.dumps(config, indent=2, sort_keys=True)}
    _write(folder / _DIFFUSERS, tensors, metadata)


def _write_peft(folder: Path, adapter: Adapter) -> None:
    _write(folder / _PEFT, _named(adapter, "base_model.model."), {"format": "pt"})
    write_json(folder / configuration.FILE, {**_CONFIG, **configuration.to_json(adapter)})


def _write_wan(folder: Path, adapter: Adapter) -> None:
    theirs, tensors = _wan().theirs, dict[str, Tensor]()
    for name, layer in adapter.layers.items():
        key = f"diffusion_model.{theirs(name)}"
        tensors[f"{key}.lora_down.weight"] = layer.down.contiguous()
        tensors[f"{key}.lora_up.weight"] = layer.up.contiguous()
        # Whoever reads it divides by the rank. As float64 it is what a float of Python says.
        tensors[f"{key}.alpha"] = torch.tensor(layer.scale * layer.rank, dtype=torch.float64)
        if layer.magnitude is not None:
            tensors[f"{key}.dora_scale"] = layer.magnitude.contiguous()
    for name, value in adapter.differences.items():
        stem, ending = _parted(theirs(name))
        tensors[f"diffusion_model.{stem}{_WAN_ENDINGS[ending]}"] = value.contiguous()
    _write(folder / _WAN, tensors, {"format": "pt"})


def _wan() -> Dialect:
    """The names of the original code."""
    return next(one for network in generating() for one in network.dialects if one.name == "wan")


def _parted(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return stem, dot + ending


def _named(adapter: Adapter, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}{name}.{half}.weight": value.contiguous()
        for name, layer in adapter.layers.items()
        for half, value in (("lora_A", layer.down), ("lora_B", layer.up))
    } | {
        f"{prefix}{name}.{part}": value.contiguous()
        for name, layer in adapter.layers.items()
        for part, value in layer.more.items()
    }


def _unsaid_by_wan(adapter: Adapter) -> str | None:
    """What an adapter holds and the original code's keys can't say."""
    dialect = _wan()
    if strange := [name for name in (*adapter.layers, *adapter.differences) if not _has(dialect, name)]:
        return f"has no names for {first_names(strange)}"
    if biased := [name for name, layer in adapter.layers.items() if layer.bias is not None]:
        return f"has no keys for biases of second matrices: {first_names(biased)}"
    parts = {name: _parted(dialect.theirs(name))[1] for name in adapter.differences}
    if unsaid := [name for name, ending in parts.items() if ending not in _WAN_ENDINGS]:
        return f"has no keys for full differences of {first_names(unsaid)}"
    return None


def _has(dialect: Dialect, name: str) -> bool:
    try:
        return bool(dialect.theirs(name))
    except KeyError:
        return False


def _unsaid(adapter: Adapter) -> str | None:
    """What an adapter holds and PEFT's keys or configuration can't say."""
    if adapter.differences:
        return (
            f"has no keys for full differences, and the adapter has them: {first_names(adapter.differences)}"
        )
    # PEFT's configuration has one field for what an adapter can have in several ways.
    for part in ("lora_magnitude_vector", "lora_B.bias"):
        having = [name for name, layer in adapter.layers.items() if part in layer.more]
        if 0 < len(having) < len(adapter.layers):
            some = f"{len(having)} of {len(adapter.layers)} layers have {part}"
            return f"can't say that {some}: {first_names(having)}"
    columns = [name for name, layer in adapter.layers.items() if layer.by_columns]
    return f"can't say DoRA by columns (dora_scale) of {first_names(columns)}" if columns else None


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    save_file(dict(tensors), path, metadata)
    sync(path)

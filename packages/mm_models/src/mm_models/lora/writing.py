"""Writes adapters as diffusers and PEFT do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mm_config.durable import sync
from mm_config.schema import Problem, UserError
from mm_models.lora import configuration
from mm_models.lora.adapter import Adapter
from mm_models.lora.files import METADATA, NAMES
from mm_models.naming import first_names
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


def save_adapters(experts: Mapping[str, Adapter], out: Path, style: str = "diffusers") -> None:
    """Writes adapters into a new folder, beside its place first and renamed when complete.

    diffusers: `pytorch_lora_weights.safetensors`, whose metadata hold ranks and alphas; both experts in one
    file under `transformer.` and `transformer_2.`. PEFT: `adapter_model.safetensors` and
    `adapter_config.json`; it knows no experts, so two get a folder each, by diffusers' names.

    Args:
        experts: By HIGH_NOISE and LOW_NOISE, as they were read.
        out: A folder that doesn't exist; its parent does.
        style: `diffusers` or `peft`.

    Raises:
        UserError: The place is taken or can't be written, or an adapter holds what the style has no keys
            for: full differences, DoRA by columns, or DoRA or biases at some of its layers alone; nothing is
            left behind.
    """
    for adapter in experts.values():
        if adapter.differences:
            names = ", ".join(list(adapter.differences)[:10])
            message = f"the {style} style has no keys for full differences, and the adapter has them: {names}"
            raise UserError(Problem(str(out), message))
        if problem := _unequal(adapter):
            raise UserError(Problem(str(out), f"the {style} style can't say {problem}"))
    with staged(out) as folder:
        if style == "diffusers":
            _write_diffusers(folder, experts)
        elif len(experts) == 1:
            _write_peft(folder, next(iter(experts.values())))
        else:
            for expert, adapter in experts.items():
                (folder / expert).mkdir()
                _write_peft(folder / expert, adapter)


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


def _unequal(adapter: Adapter) -> str | None:
    """What PEFT's configuration has one field for, and the adapter has in several ways."""
    for part in ("lora_magnitude_vector", "lora_B.bias"):
        having = [name for name, layer in adapter.layers.items() if part in layer.more]
        if 0 < len(having) < len(adapter.layers):
            return f"that {len(having)} of {len(adapter.layers)} layers have {part}: {first_names(having)}"
    columns = [name for name, layer in adapter.layers.items() if layer.by_columns]
    return f"DoRA by columns (dora_scale) of {first_names(columns)}" if columns else None


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    save_file(dict(tensors), path, metadata)
    sync(path)

"""The configuration of an adapter as PEFT's `LoraConfig` names it, which diffusers stores as well."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mm_config.schema import Problem, UserError
from mm_models.lora.adapter import Adapter

FILE = "adapter_config.json"
_NO_MATTER = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
)
"""Fields that change nothing of how stored matrices are applied: the keys say which layers have them."""
_ONLY = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""Fields and the values that are carried out: other ways to begin have changed the network's weights too."""
_LARGEST = 2**63
_LONGEST_PATTERN, _MOST_REPEATS = 500, 3
_READ = ("r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern")


@attrs.frozen
class Configuration:
    """What is needed of it."""

    rank: int
    """Of every layer that `ranks` doesn't name."""
    alpha: float
    """Of every layer that `alphas` doesn't name."""
    rslora: bool = False
    """Whether alpha is divided by the root of the rank."""
    dora: bool = False
    """Whether layers have magnitudes."""
    bias: bool = False
    """Whether second matrices have biases."""
    ranks: Mapping[str, int] = attrs.field(factory=dict)
    """By names, or patterns over the ends of names, of layers."""
    alphas: Mapping[str, float] = attrs.field(factory=dict)
    """As `ranks`."""

    def of(self, layer: str) -> Configuration:
        """What holds for one layer, by the name that its file has for it."""
        rank = _by_pattern(self.ranks, layer, self.rank)
        alpha = float(_by_pattern(self.alphas, layer, self.alpha))
        return attrs.evolve(self, rank=rank, alpha=alpha, ranks={}, alphas={})


def parse(stored: Any, where: str) -> Configuration:
    """Reads a configuration.

    Args:
        stored: What its JSON holds.
        where: The file, for errors.

    Raises:
        UserError: A field is missing or malformed, or asks for what is not carried out; all are named.
    """
    if not isinstance(stored, dict):
        raise UserError(Problem(where, f"expected fields and values, got {type(stored).__name__}"))
    if problems := [Problem(where, message) for message in _messages(stored)]:
        raise UserError(problems)
    return Configuration(
        rank=stored["r"],
        alpha=float(stored["lora_alpha"]),
        rslora=stored.get("use_rslora") or False,
        dora=stored.get("use_dora") or False,
        bias=stored.get("lora_bias") or False,
        ranks=stored.get("rank_pattern") or {},
        alphas=stored.get("alpha_pattern") or {},
    )


def to_json(adapter: Adapter) -> dict[str, Any]:
    """The fields that tell how an adapter's matrices are applied."""
    ranks = {name: layer.rank for name, layer in adapter.layers.items()}
    alphas = {name: layer.alpha for name, layer in adapter.layers.items()}
    rank, alpha = _most_common(ranks), _most_common(alphas)
    return {
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: _plain(value) for name, value in alphas.items() if value != alpha},
        "use_rslora": any(layer.rslora for layer in adapter.layers.values()),
        "use_dora": any(layer.magnitude is not None for layer in adapter.layers.values()),
        "lora_bias": any(layer.bias is not None for layer in adapter.layers.values()),
        "target_modules": sorted(adapter.layers),
    }


def _messages(stored: Mapping[str, Any]) -> Iterator[str]:
    if not _is_number(stored.get("r"), int) or stored["r"] < 1:
        yield f"r must be a rank of 1 or more, got {stored.get('r')!r}"
    if not _is_number(stored.get("lora_alpha")):
        yield f"lora_alpha must be a number, got {stored.get('lora_alpha')!r}"
    for field in ("use_rslora", "use_dora", "lora_bias"):
        if stored.get(field) not in (None, True, False):
            yield f"{field} must be true or false, got {stored[field]!r}"
    for field, kind in (("rank_pattern", int), ("alpha_pattern", float)):
        value = stored.get(field) or {}
        if not isinstance(value, dict) or not all(_is_number(number, kind) for number in value.values()):
            yield f"{field} must hold a number for each name, got {value!r}"
        else:
            yield from (
                f"{field} holds {name!r}, which is no pattern that can be tried"
                for name in value
                if not _can_be(name)
            )
    for field, value in stored.items():
        allowed = _ONLY.get(field)
        if allowed is not None and value not in allowed:
            yield f"{field} is {value!r}, which is not carried out; only {_either(allowed)}"
        elif allowed is None and value and field not in _NO_MATTER and field not in _READ:
            yield f"{field} is {value!r}, which is not carried out; only {_either((False,))}"


def _is_number(value: Any, kind: type = float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return False
    return abs(value) < _LARGEST if isinstance(value, int) else math.isfinite(value)


def _can_be(pattern: str) -> bool:
    """Whether a pattern is one, and is soon told to fit or not: groups are not repeated in it."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    repeats = sum(map(pattern.count, "*+{"))
    return (
        len(pattern) <= _LONGEST_PATTERN and repeats <= _MOST_REPEATS and not re.search(r"\)[*+{]", pattern)
    )


def _by_pattern(table: Mapping[str, Any], layer: str, default: Any) -> Any:
    """The layer's own entry, else that of the first pattern which fits the end of its name, as in PEFT."""
    if layer in table:
        return table[layer]
    fits = (value for name, value in table.items() if re.match(rf"(.*\.)?({name})$", layer))
    return next(fits, default)


def _plain(value: float) -> int | float:
    """A whole number as PEFT writes it, without a point."""
    return int(value) if value.is_integer() else value


def _most_common(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0]


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join(repr(value) for value in values)

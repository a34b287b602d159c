"""What weights and adapters say of themselves, held against what a spec uses them as."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from safetensors import SafetensorError, safe_open

from mm_config.durable import read_bytes, require_regular
from mm_config.schema import Problem, UserError, spec_hash
from mm_config.specs import (
    Expert,
    RandomWeights,
    ReleasedWeights,
    StartMode,
    TrainedBy,
    TrainSpec,
    Weights,
)
from mm_models.weights.layouts import stored_spec

_WORDS = {
    Expert.HIGH_NOISE: "the high-noise expert",
    Expert.LOW_NOISE: "the low-noise expert",
    Expert.SINGLE: "a single network",
}
_EXPERTS = {
    Expert.HIGH_NOISE: re.compile(r"high[\W_]*noise", re.IGNORECASE),
    Expert.LOW_NOISE: re.compile(r"low[\W_]*noise|\btransformer_2\b", re.IGNORECASE),
}
_BASES = {
    "version": re.compile(r"wan[\W_]*2[\W_]*([12])(?!\d)", re.IGNORECASE),
    "task": re.compile(r"(?<![a-z])(ti2v|t2v|i2v|flf2v)(?![a-z])", re.IGNORECASE),
    "size": re.compile(r"(?<![\d.])a?(1[._]3|14|5)b(?![a-z])", re.IGNORECASE),
}
"""What tells Wan's releases apart in their names, such as `Wan-AI/Wan2.2-T2V-A14B-Diffusers`."""
_CONFIGURATIONS = {"adapter_config.json": "base_model_name_or_path", "config.json": "_name_or_path"}
_METADATA = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "base_model_name_or_path")
"""Where kohya's and other trainers write into a file of safetensors what it was trained on."""
_PEFT_METADATA = "lora_adapter_metadata"
_WAY_OUT = "if it is meant nevertheless, name what mm convert makes of it, which says nothing of itself"


@attrs.frozen
class Use:
    """What a spec uses weights as."""

    expert: Expert
    """Which network they are, or are added to."""
    boundary: float | None
    """Noise level between both experts; None for a single network."""
    boundary_at: str = "spec.boundary"
    """Where the spec says that."""
    base: Weights | None = None
    """For an adapter: the weights of the network that it is added to."""


def check_said(path: Path, use: Use) -> None:
    """Shapes fit either expert and every network of a size; what made the weights may have told more.

    A checkpoint of a training holds its spec; other trainers' files may hold names, in the metadata of
    safetensors, in `adapter_config.json` or in `config.json`.

    Args:
        path: Where the weights or the adapter lie; what says nothing of itself is not held against anything.
        use: What they are used as.

    Raises:
        UserError: They say that they are another expert's, were trained with another boundary, or, of an
            adapter, that it was trained on another network.
    """
    trained = stored_spec(path)
    if isinstance(trained, TrainSpec):
        problems = list(_of_training(trained, use))
    else:
        problems = [f"{message}; {_WAY_OUT}" for message in _of_texts(path, use)]
    if problems:
        raise UserError(Problem(str(path), message) for message in problems)


def said_otherwise(path: Path, use: Use) -> Iterator[str]:
    """What weights say of themselves where a training may start from them all the same, as sentences."""
    trained = stored_spec(path)
    if isinstance(trained, TrainSpec):
        yield from _of_training(trained, use)
    else:
        yield from _of_texts(path, use)


def named_otherwise(path: Path, expert: Expert) -> str | None:
    """What the name of a file or folder says of its expert, where that is another; a name proves nothing."""
    told = _expert_in(path.name)
    if told is None or told is expert:
        return None
    return f"{path} is named as {_WORDS[told]}, and is used as {_WORDS[expert]} here"


def _of_training(trained: TrainSpec, use: Use) -> Iterator[str]:
    boundary = trained.diffusion.boundary
    if trained.expert is not use.expert:
        yield f"was trained as {_WORDS[trained.expert]}, and is used as {_WORDS[use.expert]} here"
    elif boundary != use.boundary:
        yield f"was trained with a boundary of {boundary}, but {use.boundary_at} is {use.boundary}"
    if use.base is not None and (differing := _differing(_base_of(trained), use)):
        yield f"was trained on {differing}"


def _base_of(trained: TrainSpec) -> Weights:
    """The network beside which adapters were trained, also where others' were trained further."""
    while (
        trained.start_mode is not StartMode.WEIGHTS
        and isinstance(trained.start_from, TrainedBy)
        and isinstance(trained.start_from.spec, TrainSpec)
    ):
        trained = trained.start_from.spec
    return trained.start_from


def _differing(base: Weights, use: Use) -> str | None:
    """How two networks differ, where both are told: seeds, trainings, or releases by their names."""
    match base, use.base:
        case RandomWeights(seed=seed), RandomWeights(seed=other) if seed != other:
            return f"random weights of seed {seed}, and is added to those of seed {other} here"
        case TrainedBy(spec=spec), TrainedBy(spec=other) if spec_hash(spec) != spec_hash(other):
            mine, theirs = spec_hash(spec)[:12], spec_hash(other)[:12]
            return f"what the training {mine} made, and is added to what {theirs} made here"
        case _:
            return _other_release(_release_of(base), use)


def _of_texts(path: Path, use: Use) -> Iterator[str]:
    for where, text in _texts(path, use.expert):
        told = _expert_in(text)
        if told is not None and told is not use.expert:
            own = f"says in {where} that it is of {_WORDS[told]} ({text!r})"
            yield f"{own}, and is used as {_WORDS[use.expert]} here"
        elif use.base is not None and (differing := _other_release(text, use)):
            yield f"says in {where} that it was trained on {differing}"


def _other_release(text: str, use: Use) -> str | None:
    """Why a name is that of another release than the network's."""
    ours = _release_of(use.base)
    theirs, own = _facts(text), _facts(ours)
    if use.boundary is not None:
        own.setdefault("version", "2")
    differing = [name for name in theirs.keys() & own.keys() if theirs[name] != own[name]]
    network = repr(ours) if _facts(ours) else "one of Wan2.2's two experts"
    return f"{text!r}, and is added to {network} here" if differing else None


def _release_of(weights: Weights | None) -> str:
    """The release that a network comes from, through all trainings; empty for none."""
    while isinstance(weights, TrainedBy) and isinstance(weights.spec, TrainSpec):
        weights = weights.spec.start_from
    return f"{weights.name}/{weights.subfolder}".rstrip("/") if isinstance(weights, ReleasedWeights) else ""


def _facts(text: str) -> dict[str, str]:
    found = {name: pattern.search(text) for name, pattern in _BASES.items()}
    return {name: one[1].lower().replace("_", ".") for name, one in found.items() if one}


def _expert_in(text: str) -> Expert | None:
    told = [expert for expert, pattern in _EXPERTS.items() if pattern.search(text)]
    return told[0] if len(told) == 1 else None


def _texts(path: Path, expert: Expert) -> Iterator[tuple[str, str]]:
    """What files say of themselves, and where; what can't be read is the business of who loads them."""
    folder = path if path.is_dir() else path.parent
    for name, key in _CONFIGURATIONS.items():
        if (file := folder / name).is_file():
            text = _object(_text(file)).get(key)
            yield from [(name, text)] if isinstance(text, str) else []
    for file in [path] if path.suffix == ".safetensors" else sorted(path.glob("*.safetensors")):
        stored = _metadata(file)
        found = {key: value for key, value in stored.items() if key in _METADATA}
        of_peft = _object(stored.get(_PEFT_METADATA, ""))
        names = {key: value for key, value in of_peft.items() if key.endswith(_METADATA[-1])}
        own = f"{'transformer_2' if expert is Expert.LOW_NOISE else 'transformer'}.{_METADATA[-1]}"
        found |= {own: names[own]} if own in names else names
        yield from ((f"its {key}", value) for key, value in found.items() if isinstance(value, str))


def _text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8", "replace")
    except OSError:
        return ""


def _metadata(file: Path) -> Mapping[str, str]:
    try:
        require_regular(file)
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

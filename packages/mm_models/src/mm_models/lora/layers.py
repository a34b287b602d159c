"""From the tensors of an adapter's file to its layers, each of which must be whole and sound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import attrs
from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_models.lora.adapter import Adapter, LowRank
from mm_models.lora.configuration import Configuration
from mm_models.lora.keys import Kind
from mm_models.weights.differences import DTYPES, SHOWN
from mm_models.weights.tensors import StoredTensor


@attrs.frozen
class Entry:
    """A tensor of the file and what it is."""

    theirs: str
    """Its key."""
    spelt: str
    """The name of the layer or parameter as the file has it."""
    name: str
    """Ours."""
    expert: str
    """HIGH_NOISE or LOW_NOISE."""
    kind: Kind
    """Which part of the layer's change it is."""
    stored: StoredTensor
    """Where its values lie."""


def adapter_of(entries: Iterable[Entry], config: Configuration | None, where: str) -> Adapter:
    """Reads and joins the tensors of one network's adapter.

    Args:
        entries: Its tensors, each once.
        config: What says ranks and alphas beside them.
        where: The file, for errors.

    Raises:
        UserError: Halves are missing, shapes, ranks or alphas don't fit, or values are not finite; the first
            ten problems are named.
    """
    halves: dict[str, dict[Kind, Entry]] = {}
    differences: dict[str, Tensor] = {}
    messages: list[str] = []
    unreadable: set[str] = set()
    for entry in entries:
        if unsound := _unsound(entry):
            messages.append(f"{entry.theirs} {unsound}")
            unreadable.add(entry.name)
        if entry.kind != "difference":
            halves.setdefault(entry.name, {})[entry.kind] = entry
        elif not unsound:
            differences[entry.name] = entry.stored.read()
            if not differences[entry.name].isfinite().all():
                messages.append(f"{entry.name} has values that are not finite")
    layers: dict[str, LowRank] = {}
    for name, parts in halves.items():
        told = config and config.of(next(iter(parts.values())).spelt)
        problems = list(_shape_messages(name, parts, told))
        if not problems and name not in unreadable:
            down, up = parts["down"].stored.read(), parts["up"].stored.read()
            alpha = float(parts["alpha"].stored.read()) if "alpha" in parts else None
            problems = list(_value_messages(name, down, up, alpha, told))
            layers[name] = _layer(down, up, alpha, told)
        messages += problems
    if messages:
        more = [f"and {len(messages) - SHOWN} more problems like these"] if len(messages) > SHOWN else []
        raise UserError(Problem(where, message) for message in (*messages[:SHOWN], *more))
    return Adapter(layers, differences)


def _unsound(entry: Entry) -> str | None:
    """Why a tensor's values can't be used, whatever its shape."""
    stored = entry.stored
    if entry.kind != "alpha" and stored.dtype not in DTYPES:
        return f"is {str(stored.dtype).removeprefix('torch.')}; allowed: float32, bfloat16, float16"
    return None if stored.is_whole else "is not whole: parts of it are missing"


def _shape_messages(name: str, parts: Mapping[Kind, Entry], told: Configuration | None) -> Iterator[str]:
    """What is wrong with a layer before its values are read."""
    if absent := [half for half in ("down", "up") if half not in parts]:
        spelt = {"down": "lora_A (lora_down)", "up": "lora_B (lora_up)"}
        held = ", ".join(entry.theirs for entry in parts.values())
        yield f"{name} lacks {' and '.join(spelt[half] for half in absent)}; there is {held}"
        return
    down, up = parts["down"].stored.shape, parts["up"].stored.shape
    if len(down) < 2 or len(up) < 2 or up[1] != down[0] or 0 in down + up or set(up[2:]) - {1}:
        yield f"{name} has matrices that don't fit each other: {down} and {up}"
    elif told is not None and down[0] != told.rank:
        yield f"{name} has rank {down[0]}, its configuration says {told.rank}"
    if "alpha" in parts and parts["alpha"].stored.shape not in ((), (1,)):
        yield f"{parts['alpha'].theirs} must be one number, its shape is {parts['alpha'].stored.shape}"


def _value_messages(
    name: str, down: Tensor, up: Tensor, alpha: float | None, told: Configuration | None
) -> Iterator[str]:
    if not (down.isfinite().all() and up.isfinite().all()):
        yield f"{name} has values that are not finite"
    if alpha is not None and not math.isfinite(alpha):
        yield f"the alpha of {name} is {alpha}"
    if alpha is not None and told is not None and alpha != told.alpha:
        yield f"the alpha of {name} is {alpha:g}, its configuration says {told.alpha:g}"


def _layer(down: Tensor, up: Tensor, alpha: float | None, told: Configuration | None) -> LowRank:
    if told is not None:
        return LowRank(down, up, told.alpha, told.rslora)
    return LowRank(down, up, float(down.shape[0]) if alpha is None else alpha)

"""From the tensors of an adapter's file to its layers, each of which must be whole and sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs
from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_models.lora.adapter import Adapter, LowRank
from mm_models.lora.configuration import Configuration
from mm_models.lora.keys import Kind
from mm_models.weights.differences import DTYPES, SHOWN
from mm_models.weights.tensors import StoredTensor

_SHAPED: Mapping[Kind, Callable[[tuple[int, ...]], tuple[tuple[int, ...], ...]]] = {
    "bias": lambda weight: ((weight[0],),),
    "magnitude": lambda weight: ((weight[0],), (1, weight[0], *(1 for _ in weight[2:]))),
    "dora_scale": lambda weight: (
        (weight[0], *(1 for _ in weight[1:])),
        (1, weight[1], *(1 for _ in weight[2:])),
    ),
}
"""The shapes that parts beside both matrices may have, by that of the layer's weight."""


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
            layers[name] = _layer(parts, told)
            problems = list(_value_messages(name, layers[name], "alpha" in parts, told))
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
    if min(len(down), len(up)) < 2 or up[1] != down[0] or 0 in down + up or set(up[2:]) - {1}:
        yield f"{name} has matrices that don't fit each other: {down} and {up}"
        return
    if told is not None and down[0] != told.rank:
        yield f"{name} has rank {down[0]}, its configuration says {told.rank}"
    weight = (up[0], *down[1:])
    for kind in _SHAPED.keys() & parts.keys():
        if (shape := parts[kind].stored.shape) not in _SHAPED[kind](weight):
            yield f"{parts[kind].theirs} is {shape}, which fits no weight of {weight}"
    held = {"use_dora": bool(parts.keys() & {"magnitude", "dora_scale"}), "lora_bias": "bias" in parts}
    if all(held.values()):
        yield f"{name} has a magnitude (DoRA) and a bias, which no program trains together"
    for field, said in {"use_dora": told.dora, "lora_bias": told.bias}.items() if told is not None else ():
        if said != held[field]:
            yield f"{name} has {'one' if held[field] else 'none'} of {field}, its configuration says {said}"
    if "alpha" in parts and parts["alpha"].stored.shape not in ((), (1,)):
        yield f"{parts['alpha'].theirs} must be one number, its shape is {parts['alpha'].stored.shape}"


def _value_messages(name: str, layer: LowRank, has_alpha: bool, told: Configuration | None) -> Iterator[str]:
    if not all(value.isfinite().all() for value in (layer.down, layer.up, *layer.more.values())):
        yield f"{name} has values that are not finite"
    if not math.isfinite(layer.alpha):
        yield f"the alpha of {name} is {layer.alpha}"
    if has_alpha and told is not None and layer.alpha != told.alpha:
        yield f"the alpha of {name} is {layer.alpha:g}, its configuration says {told.alpha:g}"


def _layer(parts: Mapping[Kind, Entry], told: Configuration | None) -> LowRank:
    """A layer from its tensors, whose shapes fit; the file's own alpha goes before the configuration's."""
    read = {kind: entry.stored.read() for kind, entry in parts.items()}
    rank = read["down"].shape[0]
    alpha = float(read["alpha"]) if "alpha" in read else float(rank) if told is None else told.alpha
    magnitude = read.get("dora_scale")
    if "magnitude" in read:
        # PEFT's is one number for each output, without axes or with those of a convolution before it.
        magnitude = read["magnitude"].view(-1, *(1,) * (read["down"].ndim - 1))
    rslora = told is not None and told.rslora
    return LowRank(read["down"], read["up"], alpha, rslora, read.get("bias"), magnitude)

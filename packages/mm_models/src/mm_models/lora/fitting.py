"""Whether an adapter fits a network."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.schema import Problem
from mm_models.lora.adapter import Adapter
from mm_models.naming import first_names
from mm_models.weights.differences import SHOWN
from mm_models.weights.published import Shapes


def changed_shapes(adapter: Adapter) -> Shapes:
    """The shape of each parameter that an adapter changes, by name."""
    layers = {f"{name}.weight": layer.weight_shape for name, layer in adapter.layers.items()}
    layers |= {
        f"{name}.bias": tuple(layer.bias.shape)
        for name, layer in adapter.layers.items()
        if layer.bias is not None
    }
    return {**layers, **{name: tuple(value.shape) for name, value in adapter.differences.items()}}


def fit_problems(adapter: Adapter, shapes: Shapes, where: str) -> list[Problem]:
    """Why an adapter can't be added to a network: parameters that it lacks or that have another shape.

    Args:
        adapter: The adapter.
        shapes: Of the network's parameters, by our names.
        where: The adapter's file, or the field that names it.
    """
    return [Problem(where, message) for message in _messages(changed_shapes(adapter), shapes)]


def _messages(changed: Shapes, shapes: Shapes) -> Iterator[str]:
    strangers = [name for name in changed if name not in shapes]
    if len(strangers) == len(changed):
        theirs = first_names(strangers, 3)
        ours = first_names((name for name in shapes if name.endswith(".weight")), 3)
        yield f"the adapter matches nothing in the network: it changes {theirs}; the network has {ours}"
        return
    if strangers:
        names = first_names(strangers, SHOWN)
        yield f"the adapter changes {len(strangers)} parameters that the network lacks: {names}"
    misshapen = [
        f"{name} is for {shape}, the network's is {shapes[name]}"
        for name, shape in changed.items()
        if name in shapes and shapes[name] != shape
    ]
    if misshapen:
        yield (
            f"the adapter changes {len(misshapen)} parameters of another shape, so it was made for another "
            f"network: {first_names(misshapen, SHOWN)}"
        )

"""Experts whose weights wait: built without memory, and filled part by part, adapters included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
from torch import nn

import mm_models
from mm_config.rules import waiting_blocks
from mm_config.schema import concerning
from mm_config.specs import RandomWeights, Residency, ResidencySpec
from mm_infer.residency.layerwise import Layerwise
from mm_infer.residency.room import Guest
from mm_infer.residency.units import Courier, Unit
from mm_models import BLOCKS
from mm_models.lora import Adapter, Addition, add_change, attach, changed_shapes, stands_beside

FillSome = Callable[[Collection[str]], None]
"""Gives some parameters, by name, their values."""


@attrs.frozen(eq=False)
class Waiting:
    """An expert before it has any weights."""

    network: nn.Module
    """On the device, without memory for its parameters."""
    weights: Path | RandomWeights
    """Where they lie, or the seed that draws them."""
    path: str
    """The field that says so."""
    merged: Sequence[Addition] = ()
    """Adapters that are added to the weights."""
    beside: Sequence[Addition] = ()
    """Adapters that are computed beside the layers."""


def placed(expert: Waiting, residency: ResidencySpec, courier: Courier, *, in_files: bool) -> Guest:
    """Makes an expert a guest of the room.

    Args:
        expert: Its network computes from now on as often as it is in the room.
        residency: Whether it comes whole or block by block.
        courier: Brings its blocks.
        in_files: Whether its weights wait in their files, and are read whenever they come; else they are
            read once, into the host's memory.

    Raises:
        UserError: The weights can't be read.
    """
    network, parts = expert.network, _parts(expert.network, residency)
    parameters, fill = dict(network.named_parameters()), _filling(expert)
    units = [Unit([parameters[name] for name in names], partial(fill, names)) for names in parts.values()]
    for names, unit in zip(parts.values(), units, strict=True):
        beside = list(_restricted(expert.beside, [name for name in names if stands_beside(network, name)]))
        if in_files and not beside:
            continue
        unit.come()
        if beside:
            attach(network, beside, where="spec.loras (merge False)")
        if not in_files:
            unit.keep_on_host()
        unit.leave()
    network.eval().requires_grad_(False)
    whole, *blocks = units
    if residency.experts is Residency.SWAP:
        return whole
    modules = [network.get_submodule(name) for name in parts if name]
    by_module = dict(zip(modules, blocks, strict=True))
    return Layerwise(whole, by_module, prefetch=residency.prefetch, courier=courier)


def _parts(network: nn.Module, residency: ResidencySpec) -> dict[str, list[str]]:
    """Names of parameters by the block that they wait with; those of "" come with the expert itself."""
    found: dict[str, list[str]] = {"": []}
    if residency.experts is Residency.LAYERWISE:
        number = len(list(network.get_submodule(BLOCKS).children()))
        found |= {f"{BLOCKS}.{index}": [] for index in waiting_blocks(residency.share, number)}
    for name, _ in network.named_parameters():
        block = ".".join(name.split(".")[:2])
        found[block if block in found else ""].append(name)
    return found


def _filling(expert: Waiting) -> FillSome:
    """What fills parameters with the weights and with what adapters add to them."""
    network, parameters = expert.network, dict(expert.network.named_parameters())
    read, merged, within = _reading(expert), _changed(expert.merged), _changed(expert.beside)
    within = {name for name in within if not stands_beside(network, name)}

    def fill(names: Collection[str]) -> None:
        read(names)
        for additions, changed in ((expert.merged, merged), (expert.beside, within)):
            for name in changed.intersection(names):
                add_change(additions, name, parameters[name])

    return fill


def _reading(expert: Waiting) -> FillSome:
    network, weights = expert.network, expert.weights
    if not isinstance(weights, RandomWeights):
        with concerning(expert.path):
            return mm_models.load_by_parts(network, weights)
    parameters, seed = dict(network.named_parameters()), weights.seed

    def draw(names: Collection[str]) -> None:
        for name in names:
            mm_models.draw(network, name, parameters[name], seed)

    return draw


def _changed(additions: Sequence[Addition]) -> set[str]:
    """Names of the parameters that adapters change."""
    return {name for addition in additions for name in changed_shapes(addition.adapter)}


def _restricted(additions: Sequence[Addition], names: Collection[str]) -> Iterator[Addition]:
    """What adapters change of some weights, without what they change of biases."""
    for addition in additions:
        adapter = addition.adapter
        layers = {
            name: attrs.evolve(layer, bias=None)
            for name, layer in adapter.layers.items()
            if f"{name}.weight" in names
        }
        differences = {name: value for name, value in adapter.differences.items() if name in names}
        if layers or differences:
            yield Addition(Adapter(layers, differences), addition.strength)

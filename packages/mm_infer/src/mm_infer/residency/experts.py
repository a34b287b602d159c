"""Networks whose weights wait: built without memory, and filled part by part, adapters included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import attrs
from torch import nn

from mm_config.rules import waiting_blocks
from mm_config.specs import Residency, ResidencySpec
from mm_infer.residency.layerwise import Layerwise
from mm_infer.residency.room import Guest
from mm_infer.residency.units import Courier, Unit
from mm_models import BLOCKS
from mm_models.lora import Adapter, Addition, add_change, attach, changed_shapes, stands_beside

FillSome = Callable[[Collection[str]], None]
"""Gives some parameters, by name, their values."""


@attrs.frozen(eq=False)
class Waiting:
    """A network, such as an expert, before it has any weights."""

    network: nn.Module
    """On the device, without memory for its parameters."""
    read: FillSome
    """Gives parameters that have memory the values of its weights."""
    blocks: str = BLOCKS
    """Name of the module whose children are its blocks."""
    merged: Sequence[Addition] = ()
    """Adapters that are added to the weights."""
    beside: Sequence[Addition] = ()
    """Adapters that are computed beside the layers."""


def placed(
    expert: Waiting, kind: Residency, residency: ResidencySpec, courier: Courier, *, in_files: bool
) -> Guest:
    """Makes a network a guest of the room.

    Args:
        expert: Its network computes from now on as often as it is in the room.
        kind: Whether it comes whole, `swap`, or block by block, `layerwise`.
        residency: How blocks come.
        courier: Brings its blocks.
        in_files: Whether its weights wait in their files, and are read whenever they come; else they are
            read once, into the host's memory.

    Raises:
        UserError: The weights can't be read.
    """
    network = expert.network
    parts = _parts(network, expert.blocks, residency.share if kind is Residency.LAYERWISE else 0.0)
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
    if kind is Residency.SWAP:
        return whole
    modules = [network.get_submodule(name) for name in parts if name]
    by_module = dict(zip(modules, blocks, strict=True))
    return Layerwise(whole, by_module, prefetch=residency.prefetch, courier=courier)


def _parts(network: nn.Module, blocks: str, share: float) -> dict[str, list[str]]:
    """Names of parameters by the block that they wait with; those of "" come with the network itself."""
    found: dict[str, list[str]] = {"": []}
    if share > 0:
        number = len(list(network.get_submodule(blocks).children()))
        found |= {f"{blocks}.{index}": [] for index in waiting_blocks(share, number)}
    for name, _ in network.named_parameters():
        block = ".".join(name.split(".")[: blocks.count(".") + 2])
        found[block if block in found else ""].append(name)
    return found


def _filling(expert: Waiting) -> FillSome:
    """What fills parameters with the weights and with what adapters add to them."""
    network, parameters = expert.network, dict(expert.network.named_parameters())
    merged, within = _changed(expert.merged), _changed(expert.beside)
    within = {name for name in within if not stands_beside(network, name)}

    def fill(names: Collection[str]) -> None:
        expert.read(names)
        for additions, changed in ((expert.merged, merged), (expert.beside, within)):
            for name in changed.intersection(names):
                add_change(additions, name, parameters[name])

    return fill


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

"""FSDP2: which modules become units, and in which formats they compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from re import fullmatch

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from mm_config.specs import FsdpSpec, PrecisionSpec
from mm_models import BLOCKS, torch_dtype
from mm_models.device import scales_while_reducing
from mm_train.matching import matching_modules


def shard(
    network: nn.Module, fsdp: FsdpSpec, precision: PrecisionSpec, parameters: DeviceMesh, device: torch.device
) -> None:
    """Makes each matched module a unit, inner ones first, then the root of what is left.

    Args:
        network: On meta.
        fsdp: The units.
        precision: The formats in which they compute and reduce.
        parameters: The ranks, see `Layout.parameters`.
        device: Where this process computes.

    Raises:
        UserError: A pattern matches a list of modules.
    """
    # Without copies there is one axis, so that nothing is summed over groups of one rank.
    mesh = parameters["copies", "shard"] if parameters["copies"].size() > 1 else parameters["shard"]
    whole = matching_modules(network, fsdp.ignore, "spec.fsdp.ignore")
    alone = _copies_alone(parameters) if whole else None
    units = [*_units(network, fsdp), *((name,) for name in whole)]
    policy, waiting = dtype_policy(precision), _waiting(device, fsdp.offload)
    for unit in sorted(units, key=lambda unit: -unit[0].count(".")):
        fully_shard(
            [network.get_submodule(name) for name in unit],
            mesh=alone if unit[0] in whole else mesh,
            mp_policy=policy,
            reshard_after_forward=unit[0] in whole or _ranks_between_passes(fsdp),
            offload_policy=waiting,
        )
    # The root's parameters are the last that forward uses and the first that backward needs.
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=False, offload_policy=waiting)
    if not scales_while_reducing(device):
        _reduce_by_sums(network)
    _gather_ahead(network, [("",), *units], fsdp)


def shard_encoder(network: nn.Module, ranks: DeviceMesh, device: torch.device, offload: bool) -> None:
    """Spreads a network that is only used over ranks: its weights are whole while their unit computes.

    All ranks have to call it equally often. Units are the items of its lists, and embeddings beside them; the
    little else stays whole, and the network its own class, by whose name transformers finds what it returns.

    Args:
        network: Frozen, whole and equal on all ranks.
        ranks: All of them, one axis.
        device: Where it computes.
        offload: Whether the shards lie in the host's memory.
    """
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    inside = tuple(f"{name}." for name in lists)
    items = [
        item
        for name in lists
        if not name.startswith(inside)
        for item in network.get_submodule(name).children()
    ]
    embeddings = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding) and not name.startswith(inside)
    ]
    # Each is a root of its own: it is sharded again after its forward pass, which no backward pass follows.
    for module in (*items, *embeddings):
        fully_shard(module, mesh=ranks, reshard_after_forward=True, offload_policy=_waiting(device, offload))


def _units(network: nn.Module, fsdp: FsdpSpec) -> list[tuple[str, ...]]:
    """The modules of each unit that is sharded: blocks that follow one another, and single modules."""
    names = matching_modules(network, fsdp.wrap, "spec.fsdp.wrap")
    blocks, size = [name for name in names if fullmatch(rf"{BLOCKS}\.\d+", name)], fsdp.blocks_per_unit
    grouped = [tuple(blocks[start : start + size]) for start in range(0, len(blocks), size)]
    return [*grouped, *((name,) for name in names if name not in blocks)]


def _waiting(device: torch.device, offload: bool) -> OffloadPolicy:
    """Where shards lie, pinned where a device copies from there."""
    return CPUOffloadPolicy(pin_memory=device.type != "cpu") if offload else OffloadPolicy()


def _copies_alone(parameters: DeviceMesh) -> DeviceMesh:
    """`[ranks, 1]`: every rank that has samples of its own, or a part of one, has a whole copy.

    So FSDP2 computes with these parameters in the format of all others, and averages their gradients.
    """
    ranks = parameters["copies", "shard"]._flatten("whole")
    return ranks._unflatten(0, (ranks.size(), 1), ("whole_copies", "whole_shard"))


def _ranks_between_passes(fsdp: FsdpSpec) -> bool | int:
    """Over how many ranks FSDP2 shards a unit between its passes: True for all, False for none."""
    size = fsdp.reshard_size if fsdp.reshard_after_forward else 1
    return size is None or (size > 1 and size)


def _gather_ahead(network: nn.Module, units: Iterable[tuple[str, ...]], fsdp: FsdpSpec) -> None:
    """Has each unit begin to gather the next ones, in the order of the pass, before it computes."""
    firsts = {network.get_submodule(name): network.get_submodule(unit[0]) for unit in units for name in unit}
    if ahead := fsdp.forward_prefetch:
        order = list(dict.fromkeys(firsts[module] for module in network.modules() if module in firsts))
        for place, first in enumerate(order, 1):
            first.set_modules_to_forward_prefetch(order[place : place + ahead])  # type: ignore[operator]
    if ahead := fsdp.backward_prefetch:
        order = list(dict.fromkeys(firsts[module] for module in _backward(network) if module in firsts))
        for place, first in enumerate(order, 1):
            first.set_modules_to_backward_prefetch(order[place : place + ahead])  # type: ignore[operator]


def _backward(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all inside it as a backward pass comes to them, the last ones first."""
    yield module
    for child in reversed(list(module.children())):
        yield from _backward(child)


def dtype_policy(precision: PrecisionSpec) -> MixedPrecisionPolicy:
    """The formats that FSDP2 casts to.

    Parameters stay float32 in their shards and are cast when they are gathered. Inputs are not cast: the
    timestep of the network and the modulation inside it have to stay float32, so the caller casts what it
    passes.
    """
    return MixedPrecisionPolicy(
        param_dtype=torch_dtype(precision.compute),
        reduce_dtype=torch_dtype(precision.reduce),
        output_dtype=None if precision.output is None else torch_dtype(precision.output),
        cast_forward_inputs=False,
    )


def _reduce_by_sums(network: nn.Module) -> None:
    """Has gradients summed over ranks, then divided."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)


def reshard(network: nn.Module) -> None:
    """Gives up whole weights that are still gathered.

    FSDP2 keeps the root's after a forward pass that no backward pass follows. Until then they stand in place
    of the sharded parameters, and the next forward pass uses them, whatever the shards hold by then.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def set_gradient_sync(network: nn.Module, on: bool) -> None:
    """Whether the next backward pass reduces gradients over ranks; off while micro-batches add up."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(on)

"""Adds adapters to a network's weights, plain or sharded, and takes them out again bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mm_config.schema import Problem, UserError
from mm_models.lora.adapter import Addition
from mm_models.lora.fitting import changed_shapes, fit_problems
from mm_models.shards import own_region

_REPLACED: WeakKeyDictionary[nn.Module, list[dict[str, Tensor] | None]] = WeakKeyDictionary()
"""What each merge into a network replaced, the last one at the end; None where it was not kept."""


@torch.no_grad()
def merge(
    network: nn.Module,
    additions: Sequence[Addition],
    *,
    keep_on: torch.device | str | None = "cpu",
    where: str = "adapter",
) -> None:
    """Adds adapters to the weights: their sum is formed in float32 and rounded once to the weights' dtype.

    Every rank forms the whole change of one parameter at a time and adds its own part, so that the result is
    equal bit for bit at any number of ranks.

    Args:
        network: With its weights, plain or sharded.
        additions: Adapters that are added up.
        keep_on: Where the replaced weights are kept for `unmerge`; None keeps nothing.
        where: What errors call the adapters.

    Raises:
        UserError: An adapter matches nothing, or changes parameters that the network lacks or that have
            another shape; nothing is changed then.
    """
    parameters = _parameters(network)
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    if problems := [one for addition in additions for one in fit_problems(addition.adapter, shapes, where)]:
        raise UserError(problems)
    replaced: dict[str, Tensor] | None = None if keep_on is None else {}
    for name in dict.fromkeys(name for addition in additions for name in changed_shapes(addition.adapter)):
        parameter = parameters[name]
        local = _local(parameter)
        if replaced is not None:
            replaced[name] = local.to(keep_on, copy=True)
        add_change(additions, name, parameter)
    _REPLACED.setdefault(network, []).append(replaced)


@torch.no_grad()
def unmerge(network: nn.Module) -> None:
    """Undoes the last merge: every weight is again what it was, bit for bit.

    Raises:
        UserError: Nothing is merged, or the replaced weights were not kept: subtracting would leave the
            roundings of both steps in them.
    """
    merges = _REPLACED.get(network)
    if not merges:
        raise UserError(Problem("adapter", "none is merged into this network"))
    replaced = merges[-1]
    if replaced is None:
        message = "can't be taken out: the weights that it replaced were not kept; load them again"
        raise UserError(Problem("adapter", message))
    parameters = _parameters(network)
    for name, value in replaced.items():
        _local(parameters[name]).copy_(value)
    merges.pop()


@torch.no_grad()
def add_change(additions: Sequence[Addition], name: str, parameter: Tensor) -> None:
    """Adds to one parameter what `merge` adds to it; at least one adapter changes it."""
    local = _local(parameter)
    change = change_of(additions, name, parameter)[own_region(parameter)]
    local.copy_(change.add_(local))


def change_of(additions: Sequence[Addition], name: str, parameter: Tensor) -> Tensor:
    """The sum of all changes of a parameter, whole, in float32; at least one adapter changes it.

    Each is what the adapter alone would change. Of a sharded parameter DoRA gathers the whole, so every rank
    calls it.
    """
    module, _, leaf = name.rpartition(".")
    changes: list[Tensor] = []
    for strength, adapter in ((one.strength, one.adapter) for one in additions):
        if (layer := adapter.layers.get(module)) is not None and leaf == "weight":
            changes.append(
                layer.change(strength, _whole(parameter) if layer.magnitude is not None else parameter)
            )
        if layer is not None and leaf == "bias" and layer.bias is not None:
            changes.append(strength * layer.scale * layer.bias.to(parameter.device, torch.float32))
        if (difference := adapter.differences.get(name)) is not None:
            changes.append(strength * difference.to(parameter.device, torch.float32))
    total, *others = changes
    for other in others:
        total.add_(other)
    return total


def _parameters(network: nn.Module) -> dict[str, Tensor]:
    """The network's parameters as FSDP2 shards them: what a forward pass has left gathered would be lost."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(network.named_parameters())


def _whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()

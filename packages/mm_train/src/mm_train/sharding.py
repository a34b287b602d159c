"""FSDP2: which modules become units, and in which formats they compute."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from mm_config.specs import FsdpSpec, PrecisionSpec
from mm_models import torch_dtype
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
    mesh = parameters["shard"]
    policy = dtype_policy(precision)
    units = matching_modules(network, fsdp.wrap, "spec.fsdp.wrap")
    for name in sorted(units, key=lambda name: -name.count(".")):
        fully_shard(
            network.get_submodule(name),
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=fsdp.reshard_after_forward,
        )
    # The root's parameters are the last that forward uses and the first that backward needs.
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    if not scales_while_reducing(device):
        _reduce_by_sums(network)


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

"""Builds networks from specs and draws their first weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mm_config.schema import Problem, UserError, tag_of
from mm_config.specs import ModelSpec
from mm_models.ops.choosing import Ops, choose
from mm_models.ops.widening import widened
from mm_models.registered import builder_of, register
from mm_models.seeding import generator
from mm_models.weights.adapter_names import BESIDE
from mm_models.weights.filling import own_region

Network = Callable[[Any, Ops], nn.Module]
"""Makes the network of a spec, out of the forms of operations that it is given."""


def register_network(tag: str, network: Network) -> None:
    """Makes `network(spec, ops)` the network of the specs with a wire tag.

    A network is an `nn.Module` with `forward(latents_BCTHW, timestep, text_BLD) -> velocity_BCTHW` (and a
    fourth argument, image features, where it has an image branch), `init_buffers(device)` and
    `draw(name, shape, generator) -> Tensor`. Installed packages can declare it in the entry-point group
    `mm.networks` instead.
    """
    register("mm.networks", tag, network)


def build(
    spec: ModelSpec,
    device: torch.device | str = "meta",
    dtype: torch.dtype | None = None,
    ops: Ops | None = None,
    *,
    float32_residual: bool = False,
) -> nn.Module:
    """A spec's network without weights: `initialize` or `load` fills them.

    Args:
        spec: The architecture.
        device: `meta` allocates nothing, for sharding before `to_empty`. On a real device the parameters
            are NaN, so that a forgotten `load` shows at once, and the buffers are ready.
        dtype: Of the parameters, but for those that the spec keeps in float32; float32 by default.
        ops: The forms of the operations; by default those of the device, and on meta those of the CPU.
        float32_residual: Whether the residual stream is float32 in any case; a network that knows this has
            an attribute of that name.

    Raises:
        UserError: No installed package has a network for the spec's class, or it knows no float32 residual.
    """
    network_of: Network = builder_of("mm.networks", tag_of(spec))
    on_meta = torch.device(device).type == "meta"
    chosen = ops or choose("cpu" if on_meta else device, dtype=dtype or torch.float32)
    with torch.device("meta"):
        network = network_of(spec, chosen).to(dtype or torch.float32)
    for name, parameter in network.named_parameters():
        if spec.stays_float32(name):
            parameter.data = widened(parameter.data)
    if float32_residual:
        if not hasattr(network, "float32_residual"):
            message = f"float32_residual is true, but the network of {tag_of(spec)!r} has no such stream"
            raise UserError(Problem("", message))
        network.float32_residual = True  # type: ignore[assignment]
    if on_meta:
        return network
    network.to_empty(device=device)
    network.init_buffers(device)  # type: ignore[operator]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    return network


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    """Draws every parameter, whole, on the CPU, by a generator keyed by (seed, name); shards keep their part.

    So the weights are equal bit for bit on every device and at every number of ranks. Adapters beside layers
    are left out.
    """
    for name, parameter in network.named_parameters():
        if not name.endswith(BESIDE):
            draw(network, name, parameter, seed)


@torch.no_grad()
def draw(network: nn.Module, name: str, parameter: Tensor, seed: int) -> None:
    """Draws one parameter as `initialize` draws all."""
    whole = network.draw(name, tuple(parameter.shape), generator(seed, name))  # type: ignore[operator]
    copy_whole(whole, parameter)


def copy_whole(whole: Tensor, target: Tensor) -> None:
    """Copies a whole tensor, equal on all ranks, into a plain tensor or into this rank's shard."""
    if isinstance(target, DTensor):
        target.to_local().copy_(whole[own_region(target)])
    else:
        target.copy_(whole)

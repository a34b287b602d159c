"""Networks whose tokens all ranks of a test share, and the same alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.choosing import Ops
from mm_models.parallel import Context

Grid = tuple[int, int, int]


def context_of(ring: int = 1, ulysses: int = 1) -> Context:
    """The context of all ranks of a test."""
    ranks = torch.arange(ring * ulysses).view(ring, ulysses)
    groups: list[Any] = [dist.new_subgroups_by_enumeration(of.tolist())[0] for of in (ranks.T, ranks)]
    return Context(ring=groups[0] if ring > 1 else None, ulysses=groups[1] if ulysses > 1 else None)


def network_of(spec: WanTransformerSpec, ops: Ops, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network whose output layer is not zero."""
    network = mm_models.build(spec, "cpu", dtype=dtype, ops=ops)
    mm_models.initialize(network, seed=1)
    nn.init.normal_(network.get_parameter("proj_out.weight"), generator=torch.Generator().manual_seed(0))
    return network


def inputs_of(spec: WanTransformerSpec, grid: Grid, timestep: str, text_tokens: int = 3) -> list[Tensor]:
    """Latents of two samples, their timesteps, text, and image features where there is a branch for them."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(7))
    shape = [size * patch for size, patch in zip(grid, spec.patch_size, strict=True)]
    frames, tokens = grid[0], grid[0] * grid[1] * grid[2]
    count = {"sample": (2,), "frame": (2, frames), "token": (2, tokens)}[timestep]
    times = 1000 * torch.rand(count, generator=torch.Generator().manual_seed(8))
    if timestep != "sample":
        times[:, 0] = 0  # A given frame is clean, or the first token of it.
    image = [] if spec.image_dim is None else [draw(2, 5, spec.image_dim)]
    return [draw(2, spec.in_channels, *shape), times, draw(2, text_tokens, spec.text_dim), *image]


def found_by(network: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and every parameter's gradient."""
    out = network(*inputs)
    target = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    loss = (out.float() - target).square().mean()
    loss.backward()
    return loss.detach(), {name: one.grad for name, one in network.named_parameters() if one.grad is not None}

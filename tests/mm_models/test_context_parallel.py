"""Ranks that share a sample's tokens have the outputs, losses and gradients of one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import mm_models
from mm_config.specs.wan import WanTransformerSpec
from mm_models.ops.choosing import Ops, choose
from mm_models.parallel import Context, over_ranks, share_tokens
from tests.forked_ranks import RunRanks

RING, ULYSSES = {"ring": 4}, {"ulysses": 4}
USP = {"ring": 2, "ulysses": 2}
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


def _equal_to_one_process(
    rank: int,
    degrees: dict[str, int],
    ops: Ops,
    cases: list[tuple[WanTransformerSpec, list[Tensor]]],
    wrap: Callable[[nn.Module], None] | None = None,
) -> None:
    context = context_of(**degrees)
    for spec, inputs in cases:
        loss, expected = found_by(network_of(spec, ops), inputs)
        network = network_of(spec, over_ranks(ops, context))
        share_tokens(network, context)
        if wrap is not None:
            wrap(network)
        shared_loss, gradients = found_by(network, inputs)
        torch.testing.assert_close(shared_loss, loss, rtol=1e-5, atol=0)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            dist.all_reduce(gradient)  # As FSDP2 does: the mean over ranks, each of which has the whole loss.
            error = (gradient / dist.get_world_size() - expected[name]).norm() / expected[name].norm()
            assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("degrees", [{"ulysses": 2}, ULYSSES, {"ring": 2}, RING, USP], ids=str)
def test_losses_and_gradients_are_those_of_one_process(
    run_ranks: RunRanks, degrees: dict[str, int], tiny: WanTransformerSpec
) -> None:
    """Also where the tokens do not divide: of five on four ranks, the last rank has none."""
    spec = attrs.evolve(tiny, num_attention_heads=4, hidden_size=48)
    image = attrs.evolve(spec, image_dim=16)
    cases = [
        (spec, inputs_of(spec, (2, 2, 4), "sample")),
        (spec, inputs_of(spec, (1, 3, 5), "token")),
        (spec, inputs_of(spec, (7, 1, 1), "frame")),
        (spec, inputs_of(spec, (1, 1, 5), "sample", text_tokens=5)),
        (image, inputs_of(image, (3, 1, 3), "frame")),
    ]
    run_ranks(_equal_to_one_process, degrees, choose("cpu"), cases, ranks=math.prod(degrees.values()))

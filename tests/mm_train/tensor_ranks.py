"""A small network whose matrices ranks share, beside the same one in one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mm_config import replace
from mm_config.specs import TrainSpec
from mm_models.networks import copy_whole
from mm_models.ops import choose
from mm_models.parallel import over_ranks
from mm_models.ranks import Ranks
from mm_models.weights.filling import own_region
from mm_train.adapters import build_network
from mm_train.clipping import local_of
from mm_train.layout import Layout, layout_of
from mm_train.parallelize import materialize, parallelize

CPU = torch.device("cpu")
SAMPLES = 2
"""Of the global batch."""
SIZES = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 4,
    "model.ffn_dim": 48,
    "model.num_layers": 1,
    "model.image_dim": 28,
}


def spec_of(small: TrainSpec, **more: Any) -> TrainSpec:
    """Four heads and an image branch, so that each layer that a plan can name is there."""
    return replace(small, {**SIZES, **more})


def value_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """A value of a parameter: none is zero, so that each gradient is there."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(sum(name.encode())))
    return 1 + 0.2 * drawn if "norm" in name else 0.2 * drawn


def built(spec: TrainSpec, layout: Layout) -> nn.Module:
    """The network of a spec with its values, on this rank."""
    network, attached = build_network(spec, over_ranks(choose(CPU), layout.context))
    parallelize(network, spec, layout, CPU)
    materialize(network, CPU)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            copy_whole(value_of(name, tuple(parameter.shape)), parameter)
    if attached is not None and attached.dropout is not None:
        share = SAMPLES // layout.data_ranks
        places = range(layout.data_rank * share, (layout.data_rank + 1) * share)
        attached.dropout.begin(0, 0, places, CPU)
    return network.train()


def layout_here(spec: TrainSpec) -> Layout:
    """The layout of this process group."""
    return layout_of(spec, ranks_here(), CPU)


def ranks_here() -> Ranks:
    """The ranks of this process group."""
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), grouped=True)


ALONE = Layout(data_rank=0, data_ranks=1, leads=True, samples=None, context=None, parameters=None)


def backward(network: nn.Module, spec: TrainSpec, layout: Layout) -> Tensor:
    """Gradients of the mean loss of a batch; returns this rank's part of the mean."""
    model, draws = spec.model, torch.Generator().manual_seed(1)
    latents = torch.randn(SAMPLES, model.in_channels, 2, 4, 6, generator=draws)
    timesteps = 1000 * torch.rand(SAMPLES, generator=draws)
    text = torch.randn(SAMPLES, 5, model.text_dim, generator=draws)
    image = torch.randn(SAMPLES, 7, model.image_dim or 1, generator=draws)
    aim = torch.randn(SAMPLES, model.out_channels, 2, 4, 6, generator=draws)
    own = slice(layout.data_rank, SAMPLES, layout.data_ranks)
    given = () if model.image_dim is None else (image[own],)
    loss = (network(latents[own], timesteps[own], text[own], *given) - aim[own]).square().mean()
    loss.backward()
    return loss.detach()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors out of all ranks' parts, by nothing but the place of each."""
    parts: list[Any] = [None] * dist.get_world_size()
    mine = {name: (own_region(one), local_of(one.detach())) for name, one in tensors.items()}
    dist.all_gather_object(parts, mine)
    whole = {name: torch.full(one.shape, torch.nan) for name, one in tensors.items()}
    for name, (region, part) in (item for found in parts for item in found.items()):
        whole[name][region] = part
    return whole


def gathered_gradients(network: nn.Module) -> dict[str, Tensor]:
    """Every gradient, whole."""
    return gathered({name: one.grad for name, one in network.named_parameters() if one.grad is not None})

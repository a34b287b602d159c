"""What a rank does in a cell: a step of a real training up to its clipped gradients."""

from __future__ import annotations

import gc
import math
from functools import cache
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import mm_data
from mm_config import rules
from mm_config.options.locations import Location, Locations
from mm_config.runs import Run
from mm_config.specs import FsdpSpec, ParallelSpec, TrainSpec
from mm_data import Batch, Dataset, Stream
from mm_models.networks import copy_whole
from mm_models.ops.choosing import choose
from mm_models.parallel import over_ranks
from mm_models.ranks import Ranks
from mm_models.seeding import generator
from mm_train.adapters import build_network
from mm_train.carried_out import check_carried_out
from mm_train.clipping import clipping_of
from mm_train.gradients import gradients_of
from mm_train.layout import Layout, layout_of
from mm_train.noise import noise_levels
from mm_train.optim import build_optimizer
from mm_train.parallelize import materialize, parallelize
from mm_train.sources import Source, source_of
from mm_train.work import Training
from tests.mm_train.layouts.cells import STEP, Cell

CPU = torch.device("cpu")


@attrs.frozen(eq=False)
class Gradients:
    """What a cell is held to, and what comes out of it."""

    loss: float
    """Mean over the global batch."""
    norm: float
    """The gradients' global norm before clipping."""
    clipped: dict[str, np.ndarray] = attrs.field(repr=False)
    """Each trained parameter's gradient after it, whole; empty on all ranks but the first."""


@attrs.frozen
class Place:
    """Where clips and encoders of all cells are."""

    dataset: Dataset
    clip: Path
    """A CLIP with random weights."""

    def source(self, spec: TrainSpec) -> Source:
        """Decodes clips and encodes them."""
        return source_of(spec, Locations((Location("clip", self.clip, "the test"),)), CPU)

    def stream(self, spec: TrainSpec, source: Source, rank: int = 0, ranks: int = 1) -> Stream:
        """The batch of one step, or a rank's share of it."""
        return mm_data.stream(
            spec.data,
            self.dataset,
            seed=spec.seed,
            rank=rank,
            world_size=ranks,
            start_step=STEP,
            end_step=STEP + 1,
            load=source.load,
            workers=1,
        )


def value_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter's value, whole: none is zero, so that each gradient counts.

    Image tokens are told apart by their places: of keys that are all alike nearly nothing is left of the
    gradient, and rounding shows.
    """
    drawn = torch.randn(shape, generator=generator("layouts", name))
    if name.endswith("pos_embed"):
        return 2 * drawn
    if len(shape) == 1:
        return 0.1 * drawn + float("norm" in name and name.endswith("weight"))
    return drawn / max(shape[0], math.prod(shape[1:])) ** 0.5


@torch.no_grad()
def fill(network: nn.Module) -> None:
    """Gives every parameter its value, or this rank's part of it."""
    for name, parameter in network.named_parameters():
        copy_whole(value_of(name, tuple(parameter.shape)), parameter)


def carry_out(place: Place, cell: Cell) -> Gradients:
    """A step's clipped gradients on this rank, by the functions that a training uses, in their order."""
    spec = cell.spec
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), grouped=True)
    rules.check(spec, ranks.world_size)
    check_carried_out(spec)
    layout = _layout(spec.parallel, spec.fsdp, ranks)
    network, attached = build_network(spec, over_ranks(choose(CPU, spec.runtime.attention), layout.context))
    parallelize(network, spec, layout, CPU)
    materialize(network, CPU)
    fill(network)
    source = place.source(spec)
    training = Training(
        spec=spec,
        run=cast(Run, None),
        ranks=ranks,
        layout=layout,
        device=CPU,
        dataset=place.dataset,
        plan=cast(Any, None),
        source=source,
        levels=noise_levels(spec),
        network=network.train(),
        optimizer=build_optimizer(network, spec.optim, CPU),
        dropout=attached and attached.dropout,
        clipping=clipping_of(spec.optim, CPU),
        average=None,
        saving=cast(Any, None),
    )
    with place.stream(spec, source, layout.data_rank, layout.data_ranks) as batches:
        batch: Batch = next(batches)
        scalars = gradients_of(training, batch, batches)
    whole = {
        name: _whole(parameter.grad)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }
    kept = {name: value.numpy() for name, value in whole.items()} if ranks.is_first else {}
    del network, training
    if spec.compile.enabled:
        torch._dynamo.reset()
    gc.collect()
    return Gradients(float(scalars["loss"]), float(scalars["grad_norm"]), kept)


@cache
def _layout(parallel: ParallelSpec, fsdp: FsdpSpec, ranks: Ranks) -> Layout:
    """Made once, since it makes process groups."""
    spec = attrs.evolve(_ANY, parallel=parallel, fsdp=fsdp)
    return layout_of(spec, ranks, CPU)


def _whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


_ANY = Cell("fsdp", "none", 1, False, "text", (3, 1, 1)).spec

"""Who shares what: the ranks of a run by samples, by tokens of one sample, by matrices and by parameters.

Ranks stand in this order, the last changing fastest: groups of samples, ring, ulysses, tensor. So those that
talk most are neighbours on one host.
"""

from __future__ import annotations

from datetime import timedelta

import attrs
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mm_config.rules import group_timeout
from mm_config.specs import Dtype, ParallelSpec, TrainSpec
from mm_models.parallel import Context, context_of
from mm_models.ranks import Ranks


@attrs.frozen
class Layout:
    """The place of this process among those that share its samples and its parameters."""

    data_rank: int
    """This process's group among those that train on different samples, from 0."""
    data_ranks: int
    """How many such groups there are."""
    leads: bool
    """Whether this process is the first of its group, and speaks for it."""
    samples: DeviceMesh | None
    """`[data, ring, ulysses, tensor]`: ranks that differ in the last three have the same samples; None
    where each rank has samples of its own."""
    context: Context | None
    """The ranks that share this one's tokens, and its place; None where it has whole samples."""
    parameters: DeviceMesh | None
    """`[copies, shard, tensor]`: whole copies of the parameters, a copy's shards, and parts of each matrix;
    None without a process group."""


def needs_group(spec: TrainSpec) -> bool:
    """Whether a single process needs a process group, too.

    In float32 it has nothing to cast and goes without FSDP2, whose hooks cost some 30 ms a step on a CPU
    whatever the network's size; in other formats FSDP2 holds the dtype policy, and what waits in the host's
    memory.
    """
    return spec.precision.compute is not Dtype.FLOAT32 or spec.fsdp.offload


def timeout_of(spec: TrainSpec) -> timedelta:
    """How long a rank waits for the others before it fails."""
    return timedelta(seconds=group_timeout(spec.runtime)[1])


def layout_of(spec: TrainSpec, ranks: Ranks, device: torch.device) -> Layout:
    """The layout that a spec asks for, of a world that its degrees divide."""
    if not ranks.grouped:
        return Layout(data_rank=0, data_ranks=1, leads=True, samples=None, context=None, parameters=None)
    degrees, world = spec.parallel, ranks.world_size
    together = degrees.ranks_per_sample
    shard = spec.fsdp.shard_size or world // degrees.tensor
    copies = world // (degrees.tensor * shard)
    samples = _samples(degrees, world // together, device) if together > 1 else None
    return Layout(
        data_rank=ranks.rank // together,
        data_ranks=world // together,
        leads=ranks.rank % together == 0,
        samples=samples,
        context=None if samples is None else context_of(samples),
        parameters=init_device_mesh(
            device.type, (copies, shard, degrees.tensor), mesh_dim_names=("copies", "shard", "tensor")
        ),
    )


def _samples(degrees: ParallelSpec, data: int, device: torch.device) -> DeviceMesh:
    sizes = (data, degrees.ring, degrees.ulysses, degrees.tensor)
    return init_device_mesh(device.type, sizes, mesh_dim_names=("data", "ring", "ulysses", "tensor"))

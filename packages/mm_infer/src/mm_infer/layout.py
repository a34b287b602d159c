"""Who makes what: the ranks of a generation by videos, by branches of guidance, by tokens and by matrices.

Ranks stand in this order, the last changing fastest: groups that make different videos, guidance, ring,
ulysses, tensor. So those that talk most are neighbours on one host.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import attrs
import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mm_config import rules
from mm_config.console import set_by_torchrun
from mm_config.specs import GuidanceMode, InferSpec
from mm_models import device
from mm_models.parallel import Context, context_of
from mm_models.ranks import Ranks, agree_on, joined, part


@attrs.frozen(eq=False)
class Layout:
    """The place of this process among those that make videos."""

    ranks: Ranks
    """All of them."""
    data_rank: int = 0
    """This process's group among those that make different videos, from 0."""
    data_ranks: int = 1
    """How many such groups there are."""
    leads: bool = True
    """Whether this process is the first of its group, and speaks for it."""
    makers: ProcessGroup | None = None
    """The ranks of its group, which make one video together; None where it makes videos alone."""
    guidance: ProcessGroup | None = None
    """The two that make a branch of guidance each, the prompts' first; None where one makes both."""
    context: Context | None = None
    """Those that share the tokens of its passes; None where it has them all."""
    matrices: DeviceMesh | None = None
    """Those that share each matrix; None where it has them whole."""
    weights: DeviceMesh | None = None
    """Those that share one copy of the weights; None where it has one."""

    groups: tuple[ProcessGroup, ...] = attrs.field(default=(), repr=False)
    """All groups that were made for it."""

    @property
    def splits_weights(self) -> bool:
        """Whether this process has only a part of the networks' parameters."""
        return self.matrices is not None or self.weights is not None


ALONE = Layout(Ranks(rank=0, world_size=1, grouped=False))
"""One process."""


@contextmanager
def laid_out(spec: InferSpec) -> Generator[Layout]:
    """The layout of a spec among the processes that torchrun started, which join here, or of the group that
    the caller joined.

    Raises:
        UserError: The spec breaks a rule, one of which is that its degrees make up the processes that there
            are; the device is not there; or other processes have another spec or other packages.
    """
    grouped = dist.is_initialized()
    world_size = dist.get_world_size() if grouped else set_by_torchrun("WORLD_SIZE", 1, at_least=1)
    rules.check(spec, world_size)
    if not grouped and "RANK" not in os.environ:
        yield ALONE
        return
    place = device.pick(spec.runtime.device)
    with joined(place, timedelta(seconds=rules.group_timeout(spec.runtime)[1])) as ranks:
        agree_on(spec, ranks)
        layout = layout_of(spec, ranks, place)
        try:
            yield layout
        finally:
            if grouped:  # Else they end with the group of all ranks.
                part(layout.groups)


def layout_of(spec: InferSpec, ranks: Ranks, place: torch.device) -> Layout:
    """The layout that a spec asks for, of the world that its degrees make up; all ranks call it."""
    if ranks.world_size == 1:
        return attrs.evolve(ALONE, ranks=ranks)
    degrees = spec.runtime.parallel
    branches = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    together = branches * degrees.ring * degrees.ulysses * degrees.tensor
    meshes: list[DeviceMesh] = []

    def mesh_of(**sizes: int) -> DeviceMesh:
        meshes.append(init_device_mesh(place.type, (*sizes.values(),), mesh_dim_names=(*sizes,)))
        return meshes[-1]

    guidance: ProcessGroup | None = None
    context: Context | None = None
    matrices: DeviceMesh | None = None
    weights: DeviceMesh | None = None
    makers: ProcessGroup | None = None
    if together > 1:
        makers = mesh_of(data=degrees.data, makers=together)["makers"].get_group()
    if branches > 1:
        guidance = mesh_of(data=degrees.data, guidance=branches, passes=together // branches)[
            "guidance"
        ].get_group()
    if degrees.ring * degrees.ulysses > 1:
        outer = degrees.data * branches
        context = context_of(
            mesh_of(videos=outer, ring=degrees.ring, ulysses=degrees.ulysses, tensor=degrees.tensor)
        )
    shard = together // degrees.tensor
    if degrees.tensor > 1 or (degrees.fsdp and shard > 1):
        # FSDP2 wants its ranks and those of matrices that are split already on one mesh.
        parameters = mesh_of(copies=degrees.data, shard=shard, tensor=degrees.tensor)
        matrices = parameters["tensor"] if degrees.tensor > 1 else None
        weights = parameters["shard"] if degrees.fsdp and shard > 1 else None
    return Layout(
        ranks,
        data_rank=ranks.rank // together,
        data_ranks=degrees.data,
        leads=ranks.rank % together == 0,
        makers=makers,
        guidance=guidance,
        context=context,
        matrices=matrices,
        weights=weights,
        # An axis of all ranks has the group of all ranks.
        groups=tuple(
            {group for mesh in meshes for group in mesh.get_all_groups()} - {dist.group.WORLD},
        ),
    )

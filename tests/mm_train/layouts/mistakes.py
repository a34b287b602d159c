"""Mistakes that are easily made in sharing a training, each as a patch of our functions on the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch.distributed as dist

import mm_train.clipping
import mm_train.gradients
import mm_train.losses
from mm_models import flow
from tests.mm_train.layouts.cells import Cell

Patch = Callable[[pytest.MonkeyPatch, Cell], None]


@contextmanager
def planted(mistake: str | None, cell: Cell) -> Iterator[None]:
    """Makes a mistake in a block; None makes none."""
    with pytest.MonkeyPatch.context() as patch:
        if mistake is not None:
            MISTAKES[mistake][1](patch, cell)
        yield


def _range_from_the_wrong_side(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """The high-noise expert has what is below the boundary."""
    right = flow.expert_range

    def wrong(spec: Any, expert: Any) -> range:
        own = right(spec, expert)
        return range(own.stop, spec.num_train_timesteps) if own.start == 0 else range(own.start)

    patch.setattr(flow, "expert_range", wrong)


def _norm_counted_twice(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Copies of a shard are added up as if they were different shards."""

    def groups_of(tensor: Any) -> tuple[dist.ProcessGroup, ...]:
        mesh = tensor.device_mesh
        return tuple(mesh.get_group(axis) for axis in range(mesh.ndim))

    patch.setattr(mm_train.clipping, "_shard_groups", groups_of)


def _loss_counted_by_every_rank(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Each rank that shares a clip adds its loss, as if it had a part of it."""
    right, times = mm_train.gradients.sample_losses, cell.spec.parallel.ranks_per_sample
    patch.setattr(mm_train.gradients, "sample_losses", lambda *args: times * right(*args))


def _noise_by_rank(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Each rank draws noise of its own."""
    right = mm_train.losses.draw

    def wrong(spec: Any, levels: Any, step: int, *rest: Any) -> Any:
        return right(spec, levels, step + 1000 * dist.get_rank(), *rest)

    patch.setattr(mm_train.losses, "draw", wrong)


MISTAKES: Mapping[str, tuple[str, Patch]] = {
    "an expert's range is taken from the wrong side": ("fsdp-none-in1-all-text", _range_from_the_wrong_side),
    "a clip norm is counted twice": ("hsdp-none-in1-all-timesteps", _norm_counted_twice),
}
"""By what is wrong: the cell that it has to turn red, and the patch."""

"""Mistakes that are easily made in sharing a training, each as a patch of our functions on the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor

import mm_train.clipping
import mm_train.gradients
import mm_train.losses
from mm_models import flow
from mm_models.parallel import context, ring, tensor
from mm_models.parallel.context import Context
from tests.mm_train.layouts.cells import Cell

Patch = Callable[[pytest.MonkeyPatch, Cell], None]


@contextmanager
def planted(mistake: str | None, cell: Cell) -> Iterator[None]:
    """Makes a mistake in a block; None makes none."""
    with pytest.MonkeyPatch.context() as patch:
        if mistake is not None:
            MISTAKES[mistake][2](patch, cell)
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


def _rope_by_local_place(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Each rank's tokens are numbered from 0."""
    right = context._Cutting._of_tokens

    def wrong(cutting: Any, whole: Tensor, path: str, axis: int) -> Tensor:
        if path == "rope":
            whole = whole.narrow(axis, 0, cutting.context.share(whole.shape[axis]))
            return whole.clone()
        return right(cutting, whole, path, axis)

    patch.setattr(context._Cutting, "_of_tokens", wrong)


def _gradient_beside_padding_dropped(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """The tokens of a rank that has padding too give nothing back."""
    right = Context.cut

    def wrong(self: Context, whole: Tensor, axis: int) -> Tensor:
        part, share = right(self, whole, axis), self.share(whole.shape[axis])
        return part.detach() if (self.place + 1) * share > whole.shape[axis] else part

    patch.setattr(Context, "cut", wrong)


def _stale_blocks(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """The backward pass works with the block that was there before the one that has come."""
    right, around = ring.ring_attention_backward, ring._around

    def stale(*args: Any) -> Iterator[Any]:
        before = None
        for turn, valid, block in around(*args):
            yield turn, valid, block if before is None else before
            before = block

    def wrong(*args: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(ring, "_around", stale)
            return right(*args)

    patch.setattr(ring, "ring_attention_backward", wrong)


def _padding_attended_to(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """The keys of a block's padding take part."""
    right = ring._around

    def wrong(*args: Any) -> Iterator[Any]:
        for turn, _, block in right(*args):
            yield turn, block.shape[2], block

    patch.setattr(ring, "_around", wrong)


def _norm_of_own_heads(patch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Queries and keys are normed over the heads of a rank alone."""
    patch.setattr(tensor, "_mean", lambda mean, _: mean)


MISTAKES: Mapping[str, tuple[str, str, Patch]] = {
    "an expert's range is taken from the wrong side": (
        "fsdp-none-in1-all-text",
        "loss",
        _range_from_the_wrong_side,
    ),
    "a clip norm is counted twice": ("hsdp-none-in1-all-timesteps", "norm", _norm_counted_twice),
    "a loss is counted by each rank": ("ulysses2-none-in1-all-text", "loss", _loss_counted_by_every_rank),
    "noise differs between ranks of a clip": ("ulysses4-none-in4-all-frame", "loss", _noise_by_rank),
    "rope goes by local place": ("ring2-full-in1-all-timesteps", "loss", _rope_by_local_place),
    "gradients beside padding are dropped": (
        "usp-none-in1-all-timesteps",
        "gradient of patch_embedding",
        _gradient_beside_padding_dropped,
    ),
    "padding is attended to": ("ring4-none-in1-all-text", "loss", _padding_attended_to),
    "a norm is one of a rank's own heads": ("tensor2-none-in1-all-text", "loss", _norm_of_own_heads),
    "ring's backward pass has stale blocks": ("ring4-none-in1-adapters-text", "gradient", _stale_blocks),
}
"""By what is wrong: the cell that it has to turn red, what is then said to be wrong, and the patch."""

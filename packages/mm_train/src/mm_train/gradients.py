"""The gradients of a step: those of the global batch's mean loss, however it is split, clipped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from mm_data import Batch
from mm_train.losses import sample_losses
from mm_train.optim import updated_by
from mm_train.sharding import set_gradient_sync
from mm_train.work import Coming, Training


def gradients_of(training: Training, batch: Batch, batches: Coming) -> dict[str, Tensor]:
    """Fills the gradients with those of the global batch's mean loss, clipped.

    Returns:
        What is logged of them, on the device: `loss`, the mean over the global batch, and `grad_norm`, the
        global norm before clipping.
    """
    loss = _accumulate(training, batch, batches)
    norm = training.clipping.clip(updated_by(training.optimizer))
    # With the shards it may lie on the host.
    return {"loss": loss, "grad_norm": norm.to(loss.device)}


def _accumulate(training: Training, batch: Batch, batches: Coming) -> Tensor:
    """Backward passes over the micro-batches of this rank; returns the mean loss over the global batch.

    FSDP2 averages gradients over ranks, so each rank's sum of losses is divided by its share of the batch:
    the mean over ranks then is the mean over the global batch, however it was split. No rank multiplies
    while it reduces, which gloo and HCCL could not do.
    """
    share_of_rank = len(batch.items)
    micro = training.spec.runtime.micro_batch_size
    total = torch.zeros((), device=training.device)
    for places in micro_batches(share_of_rank, micro):
        set_gradient_sync(training.network, on=places.stop == share_of_rank)
        loss = sample_losses(training, batch, places).sum() / share_of_rank
        training.clock.mark("forward")
        loss.backward()
        training.clock.mark("backward")
        # The device is still at it: what is next may be copied meanwhile.
        coming = batch.items[places.stop :] or batches.waiting()
        training.source.begin(coming[:micro])
        total += loss.detach()
    if training.ranks.world_size > 1:
        dist.all_reduce(total)
        total /= training.ranks.world_size
    return total


def micro_batches(size: int, micro_batch_size: int | None) -> Iterator[range]:
    """Consecutive places of one rank's share, at most `micro_batch_size` at a time; None takes all."""
    step = micro_batch_size or size
    return (range(start, min(start + step, size)) for start in range(0, size, step))

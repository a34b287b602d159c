"""The loss on clips that are held out of training: each time on the same clips, captions and noise.

The clips are the first batches of `Plan.held_out`, each as it is drawn in its first epoch; no caption is
dropped. A clip's noise is keyed by its place and is the same at each noise level.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

import mm_data
from mm_config.console import Progress, say
from mm_config.schema import UserError
from mm_config.specs import Expert, TrainSpec
from mm_data import Batch
from mm_train.batches import latent_shape
from mm_train.gradients import micro_batches
from mm_train.losses import losses_of
from mm_train.measuring import at_rest
from mm_train.metrics import send
from mm_train.noise import held_out_draws
from mm_train.work import Training


@attrs.frozen
class Validation:
    """The loss on held-out clips, not weighted; also `validation` of a line of metrics.jsonl."""

    loss: float
    """Mean over clips and noise levels."""
    by_sigma: dict[str, float]
    """Mean over clips at each noise level."""
    clips: int
    """How many clips they are means of."""
    seconds: float
    """What it took."""


def sigmas_of(spec: TrainSpec) -> tuple[float, ...]:
    """The noise levels of the spec that its expert works at, in their order."""
    assert spec.validation is not None
    if spec.expert is Expert.SINGLE or spec.diffusion.boundary is None:
        return spec.validation.sigmas
    is_high, boundary = spec.expert is Expert.HIGH_NOISE, spec.diffusion.boundary
    return tuple(sigma for sigma in spec.validation.sigmas if (sigma >= boundary) is is_high)


def validated(training: Training, step: int, bar: Progress) -> float:
    """Validates after a step, logs and says what it finds, and returns the loss.

    Args:
        training: What is trained.
        step: Steps that are done.
        bar: Tells how far it is.

    Raises:
        UserError: A loss is not finite, or too many clips are bad.
    """
    found = validate(training, bar)
    by_sigma = ", ".join(f"{loss:.4g} at {sigma}" for sigma, loss in found.by_sigma.items())
    if not math.isfinite(found.loss):
        raise UserError(
            f"step {step}: the loss on held-out clips is not finite: {by_sigma}. "
            f"{training.saving.last_good()}"
        )
    send(training.sinks, {"step": step, "validation": attrs.asdict(found)})
    say(f"validation after step {step}: {found.loss:.4g} ({by_sigma})")
    return found.loss


def validate(training: Training, bar: Progress) -> Validation:
    """The loss of the network as it is, or of its average where there is one; all ranks take part."""
    spec, plan, ranks = training.spec, training.plan.held_out, training.ranks
    assert spec.validation is not None and plan is not None
    started = time.perf_counter()
    sigmas, count = sigmas_of(spec), min(spec.validation.batches, plan.batches(1))
    sums: list[Tensor] = []
    with (
        at_rest(training),
        training.encoders.awake(),
        mm_data.stream(
            spec.data,
            training.dataset,
            seed=spec.seed,
            plan=plan,
            rank=training.layout.data_rank,
            world_size=training.layout.data_ranks,
            end_step=count,
            load=training.source.load,
            workers=training.source.workers,
            quarantine=training.quarantine,
        ) as batches,
    ):
        for done in range(count):
            bar.advance(0, doing=f"validation {done}/{count}")
            batch = ranks.together(lambda: next(batches))
            parts = micro_batches(len(batch.items), spec.runtime.micro_batch_size)
            sums += [_sums(training, batch, places, sigmas) for places in parts]
    mine = torch.stack(sums).cpu().double().sum(0).tolist()
    clips = sum(plan.size(number) for number in range(count))
    counted = clips * (ranks.world_size // training.layout.data_ranks)
    means = [math.fsum(parts) / counted for parts in zip(*ranks.gather(mine), strict=True)]
    by_sigma = {f"{sigma:g}": mean for sigma, mean in zip(sigmas, means, strict=True)}
    return Validation(math.fsum(means) / len(means), by_sigma, clips, time.perf_counter() - started)


def _sums(training: Training, batch: Batch, places: range, sigmas: Sequence[float]) -> Tensor:
    """`[noise levels]`: the summed losses of some clips of this rank's share."""
    spec = training.spec
    positions = tuple(batch.positions[place] for place in places)
    shape = latent_shape(spec, batch.shape)
    draws = held_out_draws(spec, batch.step, positions, shape)
    samples = training.source.collate([batch.items[place] for place in places], draws.dropped)
    levels = [torch.full((len(places),), sigma, dtype=torch.float64) for sigma in sigmas]
    losses = [
        losses_of(spec, training.network, samples, attrs.evolve(draws, sigma_B=level)) for level in levels
    ]
    return torch.stack([loss.sum() for loss in losses])

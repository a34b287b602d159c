"""What is random in training, keyed by the sample's place in the global batch.

The numbers depend on the seed, the step and the position alone: not on the number of ranks, the split into
micro-batches or the device, and they need no state to be resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from mm_config.specs import TimestepSampling, TrainSpec
from mm_models import flow
from mm_models.seeding import generator


@attrs.frozen
class NoiseLevels:
    """The part of the training grid that one expert is trained on."""

    indices: range
    """Indices into the tables."""
    sigmas_N: Tensor
    """float64 noise level at each index of the whole grid."""
    weights_N: Tensor
    """float64 weight of the loss at each index of the whole grid."""


@attrs.frozen
class Draws:
    """The random numbers of one micro-batch, on the CPU."""

    noise_BCTHW: Tensor
    """float32, of the latents' shape."""
    sigma_B: Tensor
    """float64 noise levels."""
    weight_B: Tensor
    """float32 weights of the loss."""
    dropped: tuple[bool, ...]
    """Whose caption is replaced by the empty one."""
    from_text: tuple[bool, ...]
    """Who isn't given the clean first frame that the network may be given."""


def noise_levels(spec: TrainSpec) -> NoiseLevels:
    """The expert's part of the grid, from the family's boundary."""
    return NoiseLevels(
        flow.expert_range(spec.diffusion, spec.expert),
        flow.training_sigmas(spec.diffusion),
        flow.loss_weights(spec.diffusion),
    )


def draw(
    spec: TrainSpec, levels: NoiseLevels, step: int, positions: tuple[int, ...], shape: tuple[int, ...]
) -> Draws:
    """Draws for the samples at `positions` of the global batch of step `step`.

    Args:
        spec: Seed and what is dropped of captions and frames.
        levels: The expert's noise levels.
        step: Optimizer step, from 0.
        positions: Places in the global batch.
        shape: `(C, T, H, W)` of one sample's latents.
    """
    noise = torch.empty(len(positions), *shape)
    for place, position in enumerate(positions):
        noise[place].normal_(generator=generator(spec.seed, step, position, "noise"))
    indices = torch.tensor([_index(spec, step, position, levels.indices) for position in positions])
    return Draws(
        noise,
        levels.sigmas_N[indices],
        levels.weights_N[indices].float(),
        dropped_captions(spec, step, positions),
        _dropped(spec.seed, step, positions, "frame", spec.data.frame_dropout),
    )


def dropped_captions(spec: TrainSpec, step: int, positions: Sequence[int]) -> tuple[bool, ...]:
    """Whose caption is replaced by the empty one; these draws are known before the others are made."""
    return _dropped(spec.seed, step, positions, "caption", spec.data.caption_dropout)


def held_out_draws(spec: TrainSpec, batch: int, positions: tuple[int, ...], shape: tuple[int, ...]) -> Draws:
    """The noise of held-out clips, which is the same whenever they are looked at; their level is 0 here.

    They have their captions, and a share of them no clean first frame, as in training.

    Args:
        spec: Seed, and which share of clips is given no frame.
        batch: Number of the batch of held-out clips, from 0.
        positions: Places in it.
        shape: `(C, T, H, W)` of one clip's latents.
    """
    noise = torch.empty(len(positions), *shape)
    for place, position in enumerate(positions):
        noise[place].normal_(generator=generator(spec.seed, batch, position, "validation"))
    return Draws(
        noise,
        sigma_B=torch.zeros(len(positions), dtype=torch.float64),
        weight_B=torch.ones(len(positions)),
        dropped=(False,) * len(positions),
        from_text=_dropped(spec.seed, batch, positions, "validation frame", spec.data.frame_dropout),
    )


def _index(spec: TrainSpec, step: int, position: int, indices: range) -> int:
    """The point of the grid for a place in the global batch; neighbours may share one."""
    place = position // (spec.diffusion.clips_per_level or 1)
    draws = generator(spec.seed, step, place, "timestep")
    if spec.diffusion.sampling is TimestepSampling.UNIFORM:
        return indices[int(torch.randint(len(indices), (), generator=draws))]
    uniform = torch.rand((), dtype=torch.float64, generator=draws)
    return flow.drawn_index(uniform, spec.diffusion, indices)


def _dropped(seed: int, step: int, positions: Sequence[int], what: str, share: float) -> tuple[bool, ...]:
    drawn = (torch.rand((), generator=generator(seed, step, position, what)) for position in positions)
    return tuple(bool(one < share) for one in drawn)

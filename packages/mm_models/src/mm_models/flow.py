"""Flow matching: the grid of noise levels, each expert's part of it, noised latents and their target.

Formulas: x_t = (1 - sigma) x0 + sigma noise, velocity = noise - x0, sigma = s u / (1 + (s - 1) u).
"""

import math
from functools import cache

import torch
from torch import Tensor

from mm_config.specs import Expert, FlowMatchingSpec, LossWeighting, TimestepSampling


def training_sigmas(spec: FlowMatchingSpec) -> Tensor:
    """`[N]` float64 noise levels, falling from sigma_max; u is evenly spaced down to sigma_min.

    With `drop_last` there are N + 1 points of which the last is left out: index i has u = 1 - i / N for the
    whole range. Formula: MindSpeed-MM's `WanFlowMatchScheduler`, whose `extra_one_step` this is.
    """
    n, last = spec.num_train_timesteps, 1 if spec.drop_last else 0
    steps = n if spec.drop_last else n - 1
    share = torch.arange(steps, last - 1, -1, dtype=torch.float64) / max(steps, 1)
    u = spec.sigma_min + (spec.sigma_max - spec.sigma_min) * share
    return spec.shift * u / (1 + (spec.shift - 1) * u)


def expert_range(spec: FlowMatchingSpec, expert: Expert) -> range:
    """Indices of `training_sigmas` that an expert is trained on.

    The high-noise expert has every sigma at and above the boundary. The boundary's index over N is the
    fraction that some trainers are configured with (0.417 for sigma 0.875 at shift 5), valid at one shift.
    """
    n = spec.num_train_timesteps
    if expert is Expert.SINGLE:
        return range(n)
    assert spec.boundary is not None, "an expert of two needs a boundary"
    switch = int((training_sigmas(spec) >= spec.boundary).sum())
    return range(switch) if expert is Expert.HIGH_NOISE else range(switch, n)


def drawn_index(uniform: Tensor, spec: FlowMatchingSpec, indices: range) -> int:
    """The point of the training grid that a number drawn evenly from [0, 1) stands for, where not all points
    are equally likely.

    The density is that of Esser et al. 2024 (Stable Diffusion 3, section 3.1) over t, the noise level before
    the shift, cut to the expert's part of the grid: t is the quantile of the number between the ends of that
    part. Index i stands for the t in ((N - i - 1) / N, (N - i) / N].

    Args:
        uniform: A float64 scalar.
        spec: Its sampling is not uniform.
        indices: The expert's part of the grid.
    """
    n = spec.num_train_timesteps
    ends = torch.tensor([n - indices.stop, n - indices.start], dtype=torch.float64) / n
    if spec.sampling is TimestepSampling.LOGIT_NORMAL:
        low, high = torch.special.ndtr((torch.logit(ends) - spec.logit_mean) / spec.logit_std)
        normal = torch.special.ndtri(low + (high - low) * uniform)
        t = torch.sigmoid(spec.logit_mean + spec.logit_std * normal)
    else:
        first, last = (_mode_place(float(end), spec.mode_scale) for end in ends)
        t = _mode_level(first + (last - first) * uniform, spec.mode_scale)
    return min(max(math.floor((1 - float(t)) * n), indices.start), indices.stop - 1)


def _mode_level(u: Tensor, scale: float) -> Tensor:
    """t = 1 - u - s (cos^2(pi u / 2) - 1 + u), which falls from 1 to 0."""
    return 1 - u - scale * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u)


@cache
def _mode_place(level: float, scale: float) -> float:
    """The u of a level, by halving, since it has no closed form."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        above = float(_mode_level(torch.tensor(middle, dtype=torch.float64), scale)) > level
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2


def loss_weights(spec: FlowMatchingSpec) -> Tensor:
    """`[N]` float64 weights of the loss at each index of `training_sigmas`, mean 1 over the whole grid.

    The bell is exp(-2 (sigma - 1/2)^2), shifted so that its smallest value is 0 and scaled to mean 1.
    """
    if spec.weighting is LossWeighting.NONE:
        return torch.ones(spec.num_train_timesteps, dtype=torch.float64)
    bell = torch.exp(-2 * (training_sigmas(spec) - 0.5) ** 2)
    bell = bell - bell.min()
    return bell / bell.mean()


def timestep_of(sigma: Tensor, spec: FlowMatchingSpec) -> Tensor:
    """The timestep that the network is told: sigma times the number of training timesteps, float32."""
    return (sigma * spec.num_train_timesteps).float()


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t at noise level sigma.

    Args:
        x0: `[B, ...]` clean latents.
        noise: Standard normal, of x0's shape.
        sigma: `[B]` noise levels.
    """
    sigma = sigma.to(x0).view(-1, *[1] * (x0.ndim - 1))
    return torch.lerp(x0, noise, sigma)


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """What the network learns to predict: d x_t / d sigma."""
    return noise - x0

"""Flow matching: the grid of noise levels, each expert's part of it, noised latents and their target.

Formulas: x_t = (1 - sigma) x0 + sigma noise, velocity = noise - x0, sigma = s u / (1 + (s - 1) u).
"""

import torch
from torch import Tensor

from mm_config.specs import Expert, FlowMatchingSpec, LossWeighting


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

"""Euler's method along the velocity: dx = v dsigma."""

from __future__ import annotations

from torch import Tensor


def step(sigmas: Tensor, index: int, latents: Tensor, velocity: Tensor, history: None) -> tuple[Tensor, None]:
    """Latents at `sigmas[index + 1]`, of the shape of `latents`; there is nothing to remember."""
    return latents + float(sigmas[index + 1] - sigmas[index]) * velocity, history

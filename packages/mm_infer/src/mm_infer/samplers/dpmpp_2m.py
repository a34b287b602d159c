"""DPM-Solver++(2M) for flow matching (Lu et al. 2022, arXiv 2211.01095, algorithm 2), the midpoint form.

The flow is x = (1 - sigma) x0 + sigma noise, so alpha = 1 - sigma and lambda = log(alpha / sigma), the
half log signal-to-noise ratio. The solver works on predictions of x0 = x - sigma velocity. The first step
and the last, to sigma 0, have order 1, as in Wan's own `fm_solvers.py`. Where a table begins at sigma 1,
lambda is minus infinity there, and the formulas take their limits: the second step has order 1, too.
"""

from __future__ import annotations

import math

import attrs
from torch import Tensor


@attrs.frozen
class History:
    """What the next step needs of the past."""

    x0: Tensor
    """Prediction of the clean latents at the step before, of their shape."""


def step(
    sigmas: Tensor, index: int, latents: Tensor, velocity: Tensor, history: History | None
) -> tuple[Tensor, History]:
    """Latents at `sigmas[index + 1]`, from the velocity that was predicted for `latents` at `sigmas[index]`.

    Args:
        sigmas: The table, `[steps + 1]`, falling, the last one 0.
        index: The step, from 0.
        latents: Float32, any shape.
        velocity: Float32, of the latents' shape: the prediction of noise - x0.
        history: What the step before returned; None at the first step.
    """
    levels = sigmas.tolist()
    target, source = levels[index + 1], levels[index]
    x0 = latents - source * velocity
    if target == 0:
        return x0, History(x0)
    h = _lambda(target) - _lambda(source)
    scale = (1 - target) * math.expm1(-h)
    moved = target / source * latents - scale * x0
    if history is not None:
        ratio = (_lambda(source) - _lambda(levels[index - 1])) / h
        moved = moved - scale * 0.5 / ratio * (x0 - history.x0)
    return moved, History(x0)


def _lambda(sigma: float) -> float:
    return -math.inf if sigma == 1 else math.log1p(-sigma) - math.log(sigma)

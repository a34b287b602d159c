"""UniPC of order 2 for flow matching (Zhao et al. 2023, arXiv 2302.04867, variant B2(h)).

The flow is x = (1 - sigma) x0 + sigma noise, so alpha = 1 - sigma and lambda = log(alpha / sigma), the
half log signal-to-noise ratio. The solver works on predictions of x0 = x - sigma velocity. Each step first
corrects the latents it was given, using the prediction made there, then predicts the next ones. The
coefficients are scalars in float64 and the 2 x 2 system of the corrector is solved by hand, so a device needs
nothing but additions and multiplications.
"""

from __future__ import annotations

import math

import attrs
from torch import Tensor


@attrs.frozen
class History:
    """What the next step needs of the past; all tensors have the latents' shape."""

    latents: Tensor
    """Corrected latents of the step before."""
    x0: Tensor
    """Prediction of the clean latents at the step before."""
    older_x0: Tensor | None
    """Prediction of the clean latents one step earlier; None after the first step."""


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
    x0 = latents - levels[index] * velocity
    if history is None:
        return _predict(levels, index, latents, x0, None), History(latents, x0, None)
    corrected = _correct(levels, index, history, x0)
    return _predict(levels, index, corrected, x0, history.x0), History(corrected, x0, history.x0)


def _order(index: int, steps: int) -> int:
    """1 at the first step, which has no past, and at the last, which goes to sigma 0; else 2."""
    return min(2, index + 1, steps - index)


def _predict(levels: list[float], index: int, latents: Tensor, x0: Tensor, older_x0: Tensor | None) -> Tensor:
    """UniP: from `levels[index]` to the next level; at order 2 the only weight is fixed at 1/2."""
    target, source = levels[index + 1], levels[index]
    if target == 0:
        return x0
    h = _lambda(target) - _lambda(source)
    moved = target / source * latents - (1 - target) * math.expm1(-h) * x0
    if _order(index, len(levels) - 1) == 1:
        return moved
    assert older_x0 is not None
    ratio = (_lambda(levels[index - 1]) - _lambda(source)) / h
    return moved - (1 - target) * math.expm1(-h) * 0.5 / ratio * (older_x0 - x0)


def _correct(levels: list[float], index: int, history: History, x0: Tensor) -> Tensor:
    """UniC: walks from the step before to `levels[index]` once more, now knowing the prediction there."""
    target, source = levels[index], levels[index - 1]
    h = _lambda(target) - _lambda(source)
    b_h = math.expm1(-h)
    moved = target / source * history.latents - (1 - target) * b_h * history.x0
    change = x0 - history.x0
    if _order(index - 1, len(levels) - 1) == 1:
        return moved - (1 - target) * b_h * 0.5 * change
    assert history.older_x0 is not None
    ratio = (_lambda(levels[index - 2]) - _lambda(source)) / h
    # The weights solve [[1, 1], [ratio, 1]] (older, newer) = (b_1, b_2).
    phi_2 = b_h / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / b_h, 2 * phi_3 / b_h
    older = (b_1 - b_2) / (1 - ratio)
    newer = b_1 - older
    slope = (history.older_x0 - history.x0) / ratio
    return moved - (1 - target) * b_h * (older * slope + newer * change)


def _lambda(sigma: float) -> float:
    return math.log1p(-sigma) - math.log(sigma)

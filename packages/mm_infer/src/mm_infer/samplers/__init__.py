"""Samplers: a table of noise levels, and a solver that walks latents along it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mm_config.specs import Solver
from mm_infer.samplers import dpmpp_2m, euler, unipc
from mm_infer.samplers.tables import sigmas

Step = Callable[[Tensor, int, Tensor, Tensor, Any], tuple[Tensor, Any]]
"""`(sigmas, index, latents, velocity, history) -> (latents at the next noise level, history)`."""

SOLVERS: dict[Solver, Step] = {
    Solver.UNIPC: unipc.step,
    Solver.EULER: euler.step,
    Solver.DPMPP_2M: dpmpp_2m.step,
}
"""The step function of each solver; the first step is given None as its history."""

__all__ = ["SOLVERS", "Step", "sigmas"]

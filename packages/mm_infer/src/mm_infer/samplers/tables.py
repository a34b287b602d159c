"""Tables of noise levels: evenly spaced, then shifted, then 0."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_config.schema import Problem, SpecError
from mm_config.specs import SamplerSpec, SigmaTable, Solver

NUM_TRAIN_TIMESTEPS = 1000
"""A timestep is a noise level times this number, in every published Wan."""

_ENDS = {
    SigmaTable.WAN_OFFICIAL: (0.999, 0.0),
    SigmaTable.DIFFUSERS: (1.0, 1 / NUM_TRAIN_TIMESTEPS),
    SigmaTable.FULL_RANGE: (1.0, 0.0),
}
_LARGEST = 1 - 1e-6


def sigmas(sampler: SamplerSpec) -> Tensor:
    """The noise levels that the sampler visits, `[steps + 1]` in float32, falling, the last one 0.

    `WAN_OFFICIAL` is the table of Wan's own `fm_solvers_unipc.py`, `DIFFUSERS` that of diffusers' UniPC
    from version 0.37 on, whose first level is lowered to 1 - 1e-6 so that log(1 - sigma) is finite, as is
    that of every other table with UniPC. `FULL_RANGE` and `LISTED` begin at 1 itself with Euler's method.

    Raises:
        SpecError: The shift crowds the levels so closely below 1 that two are equal in float32.
    """
    table = torch.cat((_shifted(sampler), torch.zeros(1, dtype=torch.float64))).float()
    if not bool((table.diff() < 0).all()):
        crowded = f"{sampler.shift} crowds {sampler.steps} noise levels too closely for float32 to tell apart"
        raise SpecError(Problem("spec.sampler.shift", crowded))
    return table


def timesteps(sampler: SamplerSpec) -> Tensor:
    """What the network is told at each step, `[steps]` in int64: 1000 sigma, truncated."""
    return (_shifted(sampler) * NUM_TRAIN_TIMESTEPS).long()


def _shifted(sampler: SamplerSpec) -> Tensor:
    """`sigma' = s sigma / (1 + (s - 1) sigma)` in float64, as truncation would show a float32's rounding."""
    unshifted = _unshifted(sampler)
    shifted = sampler.shift * unshifted / (1 + (sampler.shift - 1) * unshifted)
    begins_at_one = sampler.sigmas in (SigmaTable.FULL_RANGE, SigmaTable.LISTED)
    return shifted if begins_at_one and sampler.solver is Solver.EULER else shifted.clamp(max=_LARGEST)


def _unshifted(sampler: SamplerSpec) -> Tensor:
    if sampler.sigmas is SigmaTable.LISTED:
        return torch.tensor(sampler.timesteps, dtype=torch.float64) / NUM_TRAIN_TIMESTEPS
    first, last = _ENDS[sampler.sigmas]
    return torch.linspace(first, last, sampler.steps + 1, dtype=torch.float64)[:-1]

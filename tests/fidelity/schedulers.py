"""diffusers' schedulers for our samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from mm_config.specs import SamplerSpec, SigmaTable, Solver

EVEN = {SigmaTable.WAN_OFFICIAL: 0.999, SigmaTable.FULL_RANGE: 1.0}
"""Tables that diffusers is given by `sigmas=`: evenly spaced from this number, shifted by the scheduler."""


def make_scheduler(sampler: SamplerSpec) -> Any:
    """The scheduler of a sampler's solver and shift, without a table."""
    if sampler.solver is Solver.EULER:
        return FlowMatchEulerDiscreteScheduler(shift=sampler.shift)
    of_solver = {Solver.UNIPC: UniPCMultistepScheduler, Solver.DPMPP_2M: DPMSolverMultistepScheduler}
    return of_solver[sampler.solver](
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sampler.shift
    )


def scheduler_of(sampler: SamplerSpec) -> Any:
    """diffusers' own scheduler for a sampler, with its table set.

    DPM-Solver++ is told a number of steps alone, and then visits the official table of UniPC; of another
    table it is given the levels that the others' schedulers make of the same numbers.
    """
    scheduler = make_scheduler(sampler)
    if sampler.solver is Solver.DPMPP_2M and sampler.sigmas is not SigmaTable.WAN_OFFICIAL:
        scheduler.set_timesteps(sampler.steps)
        most = 1 - 1e-6 if sampler.sigmas is SigmaTable.DIFFUSERS else 1.0
        levels = np.append(np.minimum(shifted(unshifted(sampler), sampler.shift), most), 0)
        scheduler.sigmas = torch.from_numpy(levels.astype(np.float32))
        scheduler.timesteps = torch.from_numpy(levels[:-1] * 1000)
        scheduler.set_begin_index(0)
    elif sampler.sigmas in (*EVEN, SigmaTable.LISTED) and sampler.solver is not Solver.DPMPP_2M:
        scheduler.set_timesteps(sigmas=unshifted(sampler))
    else:
        scheduler.set_timesteps(sampler.steps)
    return scheduler


def unshifted(sampler: SamplerSpec) -> np.ndarray:
    """The levels of a table before the shift, as their sources compute them."""
    if sampler.sigmas is SigmaTable.LISTED:
        return np.asarray(sampler.timesteps) / 1000
    if sampler.sigmas is SigmaTable.DIFFUSERS:
        return np.linspace(1, 0.001, sampler.steps + 1)[:-1]
    return np.linspace(EVEN.get(sampler.sigmas, 1.0), 0, sampler.steps + 1)[:-1]


def shifted(levels: np.ndarray, shift: float) -> np.ndarray:
    """Levels after the shift."""
    return shift * levels / (1 + (shift - 1) * levels)

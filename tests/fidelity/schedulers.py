"""diffusers' schedulers for our samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from mm_config.specs import SamplerSpec, SigmaTable, Solver

EVEN = {SigmaTable.WAN_OFFICIAL: 0.999, SigmaTable.FULL_RANGE: 1.0}
"""Tables that diffusers is given by `sigmas=`: evenly spaced from this number, shifted by the scheduler."""


def make_scheduler(sampler: SamplerSpec) -> Any:
    """The scheduler of a sampler's solver and shift, without a table."""
    if sampler.solver is Solver.EULER:
        return FlowMatchEulerDiscreteScheduler(shift=sampler.shift)
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sampler.shift
    )


def scheduler_of(sampler: SamplerSpec) -> Any:
    """diffusers' own scheduler for a sampler, with its table set."""
    scheduler = make_scheduler(sampler)
    if sampler.sigmas in EVEN:
        scheduler.set_timesteps(sigmas=np.linspace(EVEN[sampler.sigmas], 0, sampler.steps + 1)[:-1])
    else:
        scheduler.set_timesteps(sampler.steps)
    return scheduler

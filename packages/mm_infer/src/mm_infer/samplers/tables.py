"""The table of noise levels that a solver walks."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_config.schema import Problem, SpecError
from mm_config.specs import SamplerSpec


def sigmas(sampler: SamplerSpec) -> Tensor:
    """The noise levels that the sampler visits, `[steps + 1]` in float32, falling, the last one 0.

    Raises:
        SpecError: The shift crowds the levels so closely below 1 that two are equal in float32.
    """
    table = torch.tensor([*sampler.noise_levels(), 0.0], dtype=torch.float32)
    if not bool((table.diff() < 0).all()):
        crowded = f"{sampler.shift} crowds {sampler.steps} noise levels too closely for float32 to tell apart"
        raise SpecError(Problem("spec.sampler.shift", crowded))
    return table

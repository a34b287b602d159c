"""Noise tables against published literals, and solvers against diffusers' schedulers."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from mm_config.families import wan22
from mm_config.schema.errors import SpecError
from mm_config.specs.diffusion import SamplerSpec, SigmaTable, Solver
from mm_infer.samplers import SOLVERS, sigmas, timesteps

OFFICIAL, DIFFUSERS = SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS


def toy_velocity(latents: Tensor, sigma: float) -> Tensor:
    """A smooth, nonlinear velocity that depends on the noise level."""
    return torch.sin(1.3 * latents + 2 * sigma) - 0.4 * latents * torch.tanh(latents) + 0.3 * sigma


def ours(sampler: SamplerSpec) -> tuple[Tensor, list[Tensor]]:
    """Start and every later point of our trajectory."""
    table, history = sigmas(sampler), None
    latents = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(7))
    start, points = latents, []
    for index in range(sampler.steps):
        velocity = toy_velocity(latents, float(table[index]))
        latents, history = SOLVERS[sampler.solver](table, index, latents, velocity, history)
        points.append(latents)
    return start, points


def theirs(scheduler: Any, start: Tensor) -> list[Tensor]:
    latents, points = start, []
    for index, timestep in enumerate(scheduler.timesteps):
        velocity = toy_velocity(latents, float(scheduler.sigmas[index]))
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        points.append(latents)
    return points


def diffusers_unipc(sampler: SamplerSpec) -> Any:
    scheduler: Any = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sampler.shift
    )
    if sampler.sigmas is OFFICIAL:
        scheduler.set_timesteps(sigmas=np.linspace(0.999, 0, sampler.steps + 1)[:-1])
    else:
        scheduler.set_timesteps(sampler.steps)
    return scheduler


@pytest.mark.parametrize(
    ("steps", "shift", "first"),
    [
        (40, 12.0, [999, 997, 995, 993, 990, 988]),
        (40, 5.0, [999, 994, 989, 983, 978, 972]),
        (40, 3.0, [999, 991, 982, 973, 963, 954]),
        (50, 8.0, [999, 997, 994, 991, 989, 986]),
        (50, 5.0, [999, 995, 991, 987, 982, 978]),
    ],
)
def test_first_official_timesteps(steps: int, shift: float, first: list[int]):
    assert timesteps(SamplerSpec(steps=steps, shift=shift)).tolist()[:6] == first


@pytest.mark.parametrize(
    ("steps", "shift", "official", "diffusers"),
    [
        (40, 12.0, [571, 492, 386, 235], [573, 496, 391, 242]),
        (40, 5.0, [356, 288, 208, 113], [359, 291, 211, 117]),
        (50, 5.0, [302, 241, 172, 92], [305, 244, 175, 96]),
        (50, 3.0, [206, 160, 111, 57], [208, 162, 113, 60]),
        (40, 3.0, [249, 195, 136, 71], [251, 197, 138, 74]),
        (50, 8.0, [409, 337, 249, 140], [413, 341, 254, 146]),
        (30, 8.0, [551, 470, 363, 216], [553, 473, 367, 221]),
    ],
)
def test_last_timesteps_of_both_tables(steps: int, shift: float, official: list[int], diffusers: list[int]):
    assert timesteps(SamplerSpec(steps=steps, shift=shift)).tolist()[-4:] == official
    assert timesteps(SamplerSpec(steps=steps, shift=shift, sigmas=DIFFUSERS)).tolist()[-4:] == diffusers


@pytest.mark.parametrize(
    ("shift", "first"), [(12.0, 0.9999166), (5.0, 0.9997998), (3.0, 0.9996665), (8.0, 0.9998749)]
)
def test_the_official_table_starts_below_one_and_ends_at_zero(shift: float, first: float):
    table = sigmas(SamplerSpec(steps=40, shift=shift))
    assert table.shape == (41,) and table.dtype == torch.float32
    assert float(table[0]) == pytest.approx(first, abs=1e-7)
    assert float(table[-1]) == 0
    assert bool((table.diff() < 0).all())


@pytest.mark.parametrize("table", [OFFICIAL, DIFFUSERS])
@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 40, 50])
def test_unipc_walks_as_diffusers_does(steps: int, shift: float, table: SigmaTable):
    sampler = SamplerSpec(steps=steps, shift=shift, sigmas=table)
    scheduler = diffusers_unipc(sampler)
    assert float((sigmas(sampler) - scheduler.sigmas).abs().max()) <= 6e-8
    assert timesteps(sampler).tolist() == scheduler.timesteps.tolist()
    start, points = ours(sampler)
    for point, expected in zip(points, theirs(scheduler, start), strict=True):
        assert float((point - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_euler_walks_as_diffusers_does(steps: int):
    sampler = SamplerSpec(steps=steps, shift=5.0, solver=Solver.EULER)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas(sampler)[:-1].tolist())
    start, points = ours(sampler)
    for point, expected in zip(points, theirs(scheduler, start), strict=True):
        assert float((point - expected).abs().max()) <= 1e-5


def gaussian_flow_error(solver: Solver, steps: int) -> float:
    """Error where data are N(0, 1), whose exact flow is x ~ sqrt((1 - sigma)^2 + sigma^2)."""
    table, history = sigmas(SamplerSpec(steps=steps, shift=1.0)), None
    levels = table.tolist()
    latents = torch.ones(1, dtype=torch.float64)
    for index, sigma in enumerate(levels[:-2]):
        velocity = (2 * sigma - 1) / ((1 - sigma) ** 2 + sigma**2) * latents
        latents, history = SOLVERS[solver](table, index, latents, velocity, history)
    exact = math.hypot(1 - levels[-2], levels[-2]) / math.hypot(1 - levels[0], levels[0])
    return abs(float(latents) - exact)


@pytest.mark.parametrize(("solver", "order"), [(Solver.EULER, 1), (Solver.UNIPC, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver: Solver, order: int):
    assert gaussian_flow_error(solver, 40) / gaussian_flow_error(solver, 80) > 2**order * 0.9


def test_a_shift_that_leaves_no_two_levels_apart_is_refused():
    with pytest.raises(SpecError, match=r"spec\.sampler\.shift: 1000000\.0 crowds 40 noise levels"):
        sigmas(SamplerSpec(steps=40, shift=1e6))


def test_the_levels_of_distilled_networks():
    sampler = wan22.T2V_A14B_DISTILLED.sampler
    assert sigmas(sampler).tolist() == pytest.approx([1.0, 0.9375, 5 / 6, 0.625, 0.0], abs=1e-7)
    assert timesteps(sampler).tolist() == [1000, 937, 833, 625]


def test_the_table_of_the_full_range_begins_at_one_with_euler_and_below_it_with_unipc():
    full = SamplerSpec(steps=4, shift=5.0, sigmas=SigmaTable.FULL_RANGE, solver=Solver.EULER)
    even = [1.0, 0.75, 0.5, 0.25]
    assert sigmas(full).tolist() == pytest.approx([5 * u / (1 + 4 * u) for u in even] + [0.0])
    assert 0.99999 < float(sigmas(attrs.evolve(full, solver=Solver.UNIPC))[0]) < 1

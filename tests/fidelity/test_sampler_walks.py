"""Whole trajectories of our solvers against diffusers' schedulers and against the papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mm_config.specs import SamplerSpec, SigmaTable, Solver
from mm_infer.samplers import SOLVERS, sigmas
from tests.fidelity.schedulers import scheduler_of

UNIPC, EULER, DPMPP = Solver.UNIPC, Solver.EULER, Solver.DPMPP_2M
WALKS = [
    (UNIPC, SigmaTable.WAN_OFFICIAL),
    (UNIPC, SigmaTable.DIFFUSERS),
    (UNIPC, SigmaTable.FULL_RANGE),
    (EULER, SigmaTable.WAN_OFFICIAL),
    (EULER, SigmaTable.FULL_RANGE),
    (EULER, SigmaTable.DIFFUSERS_EULER),
    (DPMPP, SigmaTable.WAN_OFFICIAL),
    (DPMPP, SigmaTable.DIFFUSERS),
    (DPMPP, SigmaTable.FULL_RANGE),
    (DPMPP, SigmaTable.WAN_OFFICIAL_DPMPP),
]


def toy_velocity(latents: Any, sigma: float) -> Any:
    """A smooth, nonlinear velocity of a tensor or an array that depends on the noise level."""
    kind = torch if isinstance(latents, Tensor) else np
    return kind.sin(1.3 * latents + 2 * sigma) - 0.4 * latents * kind.tanh(latents) + 0.3 * sigma


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


def of_diffusers(sampler: SamplerSpec, start: Tensor) -> list[Tensor]:
    scheduler, latents, points = scheduler_of(sampler), start, []
    for index, timestep in enumerate(scheduler.timesteps):
        velocity = toy_velocity(latents, float(scheduler.sigmas[index]))
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        points.append(latents)
    return points


@pytest.mark.parametrize(("solver", "table"), WALKS)
@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 40, 50])
def test_a_walk_is_that_of_diffusers(steps: int, shift: float, solver: Solver, table: SigmaTable):
    sampler = SamplerSpec(steps=steps, shift=shift, solver=solver, sigmas=table)
    start, points = ours(sampler)
    for point, expected in zip(points, of_diffusers(sampler, start), strict=True):
        assert float((point - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("timesteps", [(1000, 750, 500, 250), (1000, 757, 522), (900, 400), (700,)])
@pytest.mark.parametrize("solver", list(Solver))
def test_a_walk_of_listed_timesteps_is_that_of_diffusers(solver: Solver, timesteps: tuple[int, ...]):
    steps, table = len(timesteps), SigmaTable.LISTED
    sampler = SamplerSpec(steps=steps, shift=5.0, solver=solver, sigmas=table, timesteps=timesteps)
    start, points = ours(sampler)
    for point, expected in zip(points, of_diffusers(sampler, start), strict=True):
        assert float((point - expected).abs().max()) <= 1e-5


def unipc_of_the_paper(levels: list[float], start: np.ndarray) -> list[np.ndarray]:
    """UniPC-2 with B2(h), data prediction (Zhao et al. 2023, algorithms 7 and 8), in float64.

    Every point is corrected by UniC once the prediction there is known; the first step and the last have
    order 1. The weights solve `R a = b` with `R[k][m] = r_m^k` and `b[k] = (k + 1)! phi_{k + 2}(-h) h / B`;
    the point that is predicted has r = 1.
    """
    alpha, half_snr = [1 - one for one in levels], [_half_snr(one) for one in levels]

    def move(source: int, x: np.ndarray, past: list[np.ndarray], order: int, new: np.ndarray | None) -> Any:
        h = half_snr[source + 1] - half_snr[source]
        ratios = [(half_snr[source - m] - half_snr[source]) / h for m in range(1, order)]
        changes = [
            (past[source - m] - past[source]) / r for m, r in zip(range(1, order), ratios, strict=True)
        ]
        if new is not None:
            ratios, changes = [*ratios, 1.0], [*changes, new - past[source]]
        scale = alpha[source + 1] * math.expm1(-h)
        moved = levels[source + 1] / levels[source] * x - scale * past[source]
        if not ratios:
            return moved
        phi, b = math.expm1(-h) / -h, []
        for k in range(len(ratios)):
            phi = (phi - 1 / math.factorial(k + 1)) / -h
            b.append(math.factorial(k + 1) * phi * -h / math.expm1(-h))
        if len(ratios) == 1:
            weights = [0.5]  # The paper fixes the only weight, which would depend on h otherwise.
        else:
            weights = np.linalg.solve(np.vander(ratios, increasing=True).T, b)
        return moved - scale * sum(weight * change for weight, change in zip(weights, changes, strict=True))

    steps, x, past, points, before = len(levels) - 1, start, [], [], start
    for index in range(steps):
        prediction = x - levels[index] * toy_velocity(x, levels[index])
        if index > 0:
            x = move(index - 1, before, past, min(2, index), prediction)
        past.append(prediction)
        before = x
        last = index == steps - 1
        x = prediction if last else move(index, x, past, min(2, index + 1), None)
        points.append(x)
    return points


def _half_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma) if sigma > 0 else math.inf


@pytest.mark.parametrize("table", [SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS])
@pytest.mark.parametrize(("steps", "shift"), [(1, 5.0), (2, 5.0), (3, 3.0), (20, 8.0), (40, 12.0), (50, 5.0)])
def test_a_walk_of_unipc_is_that_of_the_paper(steps: int, shift: float, table: SigmaTable):
    sampler = SamplerSpec(steps=steps, shift=shift, sigmas=table)
    start, points = ours(sampler)
    levels = sigmas(sampler).double().tolist()
    for point, expected in zip(points, unipc_of_the_paper(levels, start.double().numpy()), strict=True):
        assert float(np.abs(point.numpy() - expected).max()) <= 1e-5


def dpmpp_of_the_paper(levels: list[float], start: np.ndarray) -> list[np.ndarray]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) in float64, from a level below 1: with r = h_before / h,

    D = (1 + 1 / 2r) x0 - 1 / 2r x0_before, and x = sigma / sigma_before x - alpha (exp(-h) - 1) D. The first
    step takes x0 itself, and so does the last.
    """
    half_snr, x, before, points = [_half_snr(one) for one in levels], start, None, []
    for index in range(len(levels) - 1):
        x0 = x - levels[index] * toy_velocity(x, levels[index])
        h = half_snr[index + 1] - half_snr[index]
        middle = x0
        if before is not None and levels[index + 1] > 0:
            r = (half_snr[index] - half_snr[index - 1]) / h
            middle = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
        x = levels[index + 1] / levels[index] * x - (1 - levels[index + 1]) * math.expm1(-h) * middle
        before = x0
        points.append(x)
    return points


@pytest.mark.parametrize("table", [SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS])
@pytest.mark.parametrize(("steps", "shift"), [(1, 5.0), (2, 5.0), (3, 3.0), (20, 8.0), (40, 12.0)])
def test_a_walk_of_dpmpp_is_that_of_the_paper(steps: int, shift: float, table: SigmaTable):
    sampler = SamplerSpec(steps=steps, shift=shift, sigmas=table, solver=DPMPP)
    start, points = ours(sampler)
    levels = sigmas(sampler).double().tolist()
    for point, expected in zip(points, dpmpp_of_the_paper(levels, start.double().numpy()), strict=True):
        assert float(np.abs(point.numpy() - expected).max()) <= 1e-5

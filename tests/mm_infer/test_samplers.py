"""What noise tables and solvers promise; `tests/fidelity` compares them with their sources."""

from __future__ import annotations

import math

import attrs
import pytest
import torch

from mm_config.families import wan22
from mm_config.schema.errors import SpecError
from mm_config.specs.diffusion import SamplerSpec, SigmaTable, Solver
from mm_infer.samplers import SOLVERS, sigmas


@pytest.mark.parametrize(
    ("shift", "first"), [(12.0, 0.9999166), (5.0, 0.9997998), (3.0, 0.9996665), (8.0, 0.9998749)]
)
def test_the_official_table_starts_below_one_and_ends_at_zero(shift: float, first: float):
    table = sigmas(SamplerSpec(steps=40, shift=shift))
    assert table.shape == (41,) and table.dtype == torch.float32
    assert float(table[0]) == pytest.approx(first, abs=1e-7)
    assert float(table[-1]) == 0
    assert bool((table.diff() < 0).all())


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


@pytest.mark.parametrize(("solver", "order"), [(Solver.EULER, 1), (Solver.UNIPC, 2), (Solver.DPMPP_2M, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver: Solver, order: int):
    assert gaussian_flow_error(solver, 40) / gaussian_flow_error(solver, 80) > 2**order * 0.9


def test_a_shift_that_leaves_no_two_levels_apart_is_refused():
    with pytest.raises(SpecError, match=r"spec\.sampler\.shift: 1000000\.0 crowds 40 noise levels"):
        sigmas(SamplerSpec(steps=40, shift=1e6))


def test_the_levels_of_distilled_networks():
    sampler = wan22.T2V_A14B_DISTILLED.sampler
    assert sigmas(sampler).tolist() == pytest.approx([1.0, 0.9375, 5 / 6, 0.625, 0.0], abs=1e-7)


def test_the_table_of_the_full_range_begins_at_one_with_euler_and_below_it_with_unipc():
    full = SamplerSpec(steps=4, shift=5.0, sigmas=SigmaTable.FULL_RANGE, solver=Solver.EULER)
    even = [1.0, 0.75, 0.5, 0.25]
    assert sigmas(full).tolist() == pytest.approx([5 * u / (1 + 4 * u) for u in even] + [0.0])
    assert 0.99999 < float(sigmas(attrs.evolve(full, solver=Solver.UNIPC))[0]) < 1

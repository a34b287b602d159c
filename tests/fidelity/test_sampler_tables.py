"""Noise levels and timesteps of every table, against literals and against their own sources."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from mm_config.families import wan22
from mm_config.specs import SamplerSpec, SigmaTable, Solver
from mm_infer.samplers import sigmas
from tests.fidelity.schedulers import scheduler_of

OFFICIAL = SamplerSpec(sigmas=SigmaTable.WAN_OFFICIAL)
DIFFUSERS = SamplerSpec(sigmas=SigmaTable.DIFFUSERS)
FULL_RANGE = SamplerSpec(sigmas=SigmaTable.FULL_RANGE, solver=Solver.EULER)
DIFFUSERS_EULER = SamplerSpec(sigmas=SigmaTable.DIFFUSERS_EULER, solver=Solver.EULER)
DPMPP = SamplerSpec(sigmas=SigmaTable.WAN_OFFICIAL_DPMPP, solver=Solver.DPMPP_2M)
DISTILLED = wan22.T2V_A14B_DISTILLED.sampler


def told(sampler: SamplerSpec, steps: int, shift: float) -> list[float]:
    return attrs.evolve(sampler, steps=steps, shift=shift).told_timesteps()


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
def test_the_first_official_timesteps(steps: int, shift: float, first: list[int]):
    assert told(OFFICIAL, steps, shift)[:6] == first


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
def test_the_last_timesteps_of_both_whole_tables(
    steps: int, shift: float, official: list[int], diffusers: list[int]
):
    assert told(OFFICIAL, steps, shift)[-4:] == official
    assert told(DIFFUSERS, steps, shift)[-4:] == diffusers


def test_whole_tables_from_the_formula():
    # 1000 s u / (1 + (s - 1) u), worked out by hand and cut.
    assert told(OFFICIAL, 3, 1.0) == [999, 666, 333]
    assert told(OFFICIAL, 4, 5.0) == [999, 937, 833, 624]
    assert told(DIFFUSERS, 4, 5.0) == [999, 937, 833, 625]


def test_timesteps_that_have_fractions():
    # 5 u / (1 + 4 u) at u = 1, 0.8, 0.6, 0.4, 0.2.
    fifths = [1000, 4000 / 4.2, 3000 / 3.4, 2000 / 2.6, 1000 / 1.8]
    assert told(FULL_RANGE, 5, 5.0) == pytest.approx(fifths, rel=1e-12)
    # LightX2V's four steps; FastWan's three at shift 8.
    assert DISTILLED.told_timesteps() == pytest.approx([1000, 937.5, 2500 / 3, 625], rel=1e-12)
    fast = attrs.evolve(DISTILLED, timesteps=(1000, 757, 522), steps=3, shift=8.0)
    assert fast.told_timesteps() == pytest.approx([1000, 6056 / 6.299, 4176 / 4.654], rel=1e-12)


@pytest.mark.parametrize(
    ("shift", "last"), [(3.0, 9 / 1.008), (5.0, 25 / 1.024), (12.0, 144 / 1.143), (1.0, 1.0)]
)
def test_diffusers_euler_shifts_its_least_level_twice(shift: float, last: float):
    # s (s 0.001) / (1 + (s s - 1) 0.001) is what two shifts make of 0.001.
    for steps in (2, 40):
        assert told(DIFFUSERS_EULER, steps, shift)[0] == 1000
        assert told(DIFFUSERS_EULER, steps, shift)[-1] == pytest.approx(last, rel=1e-12)


def test_a_whole_row_of_diffusers_euler():
    # At shift 3 one shift makes 1/334 of 0.001; four levels from 1 to that are 1, 669/1002, 336/1002 and
    # 1/334, and 3000 u / (1 + 2 u) shifts them again.
    row = [1000, 857.692307692, 602.150537634, 8.928571429]
    assert told(DIFFUSERS_EULER, 4, 3.0) == pytest.approx(row, rel=1e-9)


def official_table(steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """What `fm_solvers_unipc.py` of Wan's own code computes: its levels with a final 0, and its timesteps."""
    alphas = np.linspace(1, 1 / 1000, 1000)[::-1].copy()
    kept = (1.0 - alphas).astype(np.float32)
    levels = np.linspace(float(kept[0]), float(kept[-1]), steps + 1).copy()[:-1]
    levels = shift * levels / (1 + (shift - 1) * levels)
    return np.append(levels, 0).astype(np.float32), (levels * 1000).astype(np.int64)


@pytest.mark.parametrize("shift", [1.0, 2.5, 3.0, 5.0, 8.0, 12.0, 16.0])
def test_the_official_table_at_any_number_of_steps(shift: float):
    for steps in range(1, 101):
        levels, timesteps = official_table(steps, shift)
        assert told(OFFICIAL, steps, shift) == timesteps.tolist()
        ours = sigmas(attrs.evolve(OFFICIAL, steps=steps, shift=shift))
        assert float((ours - torch.from_numpy(levels)).abs().max()) <= 6e-8


@pytest.mark.parametrize(
    ("steps", "shift", "first", "last"),
    [
        # 1000 s u / (1 + (s - 1) u) at u = k / steps, cut: 12 u / (1 + 11 u) is 11.7 / 11.725 at 39 / 40.
        (40, 12.0, [1000, 997, 995, 993], [571, 493, 387, 235]),
        (40, 5.0, [1000, 994, 989, 984], [357, 288, 208, 113]),
        (50, 3.0, [1000, 993, 986, 979], [206, 160, 111, 57]),
    ],
)
def test_the_official_timesteps_of_dpmpp(steps: int, shift: float, first: list[int], last: list[int]):
    row = told(DPMPP, steps, shift)
    assert row[:4] == first and row[-4:] == last


@pytest.mark.parametrize("shift", [1.0, 2.5, 3.0, 5.0, 8.0, 12.0, 16.0])
def test_the_official_table_of_dpmpp_at_any_number_of_steps(shift: float):
    for steps in range(1, 101):
        # `get_sampling_sigmas` of Wan's `fm_solvers.py`, which its scheduler shifts by 1 and cuts to int64.
        levels = np.linspace(1, 0, steps + 1)[:steps]
        levels = shift * levels / (1 + (shift - 1) * levels)
        assert told(DPMPP, steps, shift) == (levels * 1000).astype(np.int64).tolist()
        kept = np.append(levels, 0).astype(np.float32)
        ours = sigmas(attrs.evolve(DPMPP, steps=steps, shift=shift))
        assert float((ours - torch.from_numpy(kept)).abs().max()) <= 6e-8


def table_name(sampler: SamplerSpec) -> str:
    return sampler.sigmas.value


@pytest.mark.parametrize("sampler", [OFFICIAL, DIFFUSERS, FULL_RANGE, DIFFUSERS_EULER], ids=table_name)
@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0, 12.0])
def test_a_table_is_that_of_diffusers_scheduler(sampler: SamplerSpec, shift: float):
    for steps in (1, 2, 3, 4, 7, 20, 30, 37, 40, 50, 64):
        one = attrs.evolve(sampler, steps=steps, shift=shift)
        scheduler = scheduler_of(one)
        assert float((sigmas(one) - scheduler.sigmas).abs().max()) <= 1.2e-7
        expected = scheduler.timesteps.tolist()
        whole = sampler.sigmas in (SigmaTable.WAN_OFFICIAL, SigmaTable.DIFFUSERS)
        assert one.told_timesteps() == (expected if whole else pytest.approx(expected, abs=2.5e-4))

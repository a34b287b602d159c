"""How often each noise level is drawn, against the densities as published."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import UserError
from mm_config.specs import Expert, TimestepSampling, TimestepScope, TrainSpec
from mm_train import train
from mm_train.noise import draw, noise_levels

DRAWS = 4000


def logit_normal(t: float, mean: float, deviation: float) -> float:
    """Esser et al. 2024, equation 19, summed up to t."""
    return 0.5 * (1 + math.erf((math.log(t / (1 - t)) - mean) / deviation / math.sqrt(2)))


def mode(t: float, scale: float) -> float:
    """Equation 20: the share of u in [0, 1] whose f(u) = 1 - u - s (cos^2(pi u / 2) - 1 + u) is at most t."""
    grid = [(index + 0.5) / 20_000 for index in range(20_000)]
    return sum(1 - u - scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u) <= t for u in grid) / len(grid)


CASES: dict[str, tuple[dict[str, Any], Callable[[float], float]]] = {
    "uniform": ({}, lambda t: t),
    "logit-normal": (
        {"diffusion.sampling": TimestepSampling.LOGIT_NORMAL},
        lambda t: logit_normal(t, 0.0, 1.0),
    ),
    "more noise": (
        {
            "diffusion.sampling": TimestepSampling.LOGIT_NORMAL,
            "diffusion.logit_mean": 0.8,
            "diffusion.logit_std": 0.6,
        },
        lambda t: logit_normal(t, 0.8, 0.6),
    ),
    "mode": ({"diffusion.sampling": TimestepSampling.MODE}, lambda t: mode(t, 1.29)),
    "ends": (
        {"diffusion.sampling": TimestepSampling.MODE, "diffusion.mode_scale": -0.7},
        lambda t: mode(t, -0.7),
    ),
}


@pytest.mark.parametrize("expert", list(Expert))
@pytest.mark.parametrize("name", CASES)
def test_levels_are_drawn_as_often_as_their_density_says(name: str, expert: Expert, small: TrainSpec) -> None:
    changes, below = CASES[name]
    spec = replace(small, {**changes, "expert": expert})
    sigmas = draw(spec, noise_levels(spec), 0, tuple(range(DRAWS)), (1, 1, 1, 1)).sigma_B.tolist()
    shift = spec.diffusion.shift
    levels = sorted(sigma / (shift - (shift - 1) * sigma) for sigma in sigmas)
    edge = 0.875 / (shift - (shift - 1) * 0.875)
    low, high = {
        Expert.SINGLE: (0.0, 1.0),
        Expert.HIGH_NOISE: (edge, 1.0),
        Expert.LOW_NOISE: (0.0, edge),
    }[expert]
    ends = [below(min(max(end, 1e-12), 1 - 1e-12)) for end in (low, high)]
    for part in range(1, 10):
        t = low + (high - low) * part / 10
        expected = (below(t) - ends[0]) / (ends[1] - ends[0])
        found = sum(level <= t for level in levels) / DRAWS
        # Four deviations of a share among so many draws, and one point of the grid.
        assert abs(found - expected) < 4 * math.sqrt(0.25 / DRAWS) + 1e-3 / (high - low), (t, found, expected)


def test_neighbours_share_a_level_however_the_batch_is_split(small: TrainSpec) -> None:
    spec = replace(small, {"diffusion.clips_per_level": 3})
    levels = noise_levels(spec)
    whole = draw(spec, levels, 5, tuple(range(8)), (1, 1, 1, 1)).sigma_B.tolist()
    assert whole[0] == whole[1] == whole[2] and whole[3] == whole[4] == whole[5] and whole[6] == whole[7]
    assert len(set(whole)) == 3
    parts = [draw(spec, levels, 5, (place,), (1, 1, 1, 1)).sigma_B.tolist() for place in range(8)]
    assert whole == [level for part in parts for level in part]


def test_a_level_for_each_micro_batch_is_refused_with_what_to_say_instead(
    small: TrainSpec, options: RunOptions
) -> None:
    with pytest.raises(UserError, match=r"spec\.diffusion\.timesteps_per: .* diffusion\.clips_per_level"):
        train(replace(small, "diffusion.timesteps_per", TimestepScope.MICRO_BATCH), options)

"""Flow matching against published golden values."""

import numpy as np
import pytest
import torch

from mm_config.specs.diffusion import Expert, FlowMatchingSpec, LossWeighting
from mm_models import flow

SHIFT_5 = FlowMatchingSpec(shift=5.0, boundary=0.875, weighting=LossWeighting.BELL)


def test_sigmas_at_shift_5() -> None:
    sigmas = flow.training_sigmas(SHIFT_5)
    golden = {0: 1.0, 1: 0.9998, 357: 0.900056, 358: 0.899664, 416: 0.8753, 417: 0.87485}
    golden |= {500: 0.833333, 833: 0.5006, 999: 0.004980}
    assert len(sigmas) == 1000
    assert {index: sigmas[index].item() for index in golden} == pytest.approx(golden, abs=1e-5)
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_ends_of_the_grid_follow_mindspeeds_formula(drop_last: bool) -> None:
    highest, lowest, n = 0.98, 0.003 / 1.002, 1000
    spec = FlowMatchingSpec(shift=3.0, sigma_max=highest, sigma_min=lowest, drop_last=drop_last)
    u = np.linspace(highest, lowest, n + 1)[:-1] if drop_last else np.linspace(highest, lowest, n)
    np.testing.assert_allclose(flow.training_sigmas(spec), 3.0 * u / (1 + 2.0 * u), rtol=1e-12)


def test_the_bell_at_shift_5() -> None:
    weights = flow.loss_weights(SHIFT_5)
    assert weights[[0, 417, 500]].tolist() == pytest.approx([0.0, 0.783548, 1.024862], abs=1e-5)
    assert weights.argmax() == 833
    assert weights.max().item() == pytest.approx(2.0764, abs=1e-5)
    assert weights.sum().item() == pytest.approx(1000)
    means = [
        weights[start:end].mean().item() for start, end in ((0, 417), (417, 1000), (0, 358), (358, 1000))
    ]
    assert means == pytest.approx([0.3424, 1.4704, 0.2825, 1.4001], abs=1e-4)


def test_no_weighting_counts_every_sigma_once() -> None:
    assert (flow.loss_weights(FlowMatchingSpec(weighting=LossWeighting.NONE)) == 1).all()


@pytest.mark.parametrize(
    ("shift", "boundary", "switch"),
    [(5.0, 0.875, 417), (5.0, 0.900, 358), (12.0, 0.875, 632), (3.0, 0.875, 300)],
)
def test_each_experts_range_follows_from_the_boundary(shift: float, boundary: float, switch: int) -> None:
    spec = FlowMatchingSpec(shift=shift, boundary=boundary)
    high, low = (flow.expert_range(spec, expert) for expert in (Expert.HIGH_NOISE, Expert.LOW_NOISE))
    assert (high, low) == (range(switch), range(switch, 1000))
    sigmas = flow.training_sigmas(spec)
    assert (sigmas[list(high)] >= boundary).all() and (sigmas[list(low)] < boundary).all()
    assert flow.expert_range(spec, Expert.SINGLE) == range(1000)


def test_the_velocity_leads_from_noised_latents_to_both_ends() -> None:
    draws = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 5, 6, 7, generator=draws).unbind(0)
    sigma = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    noised = flow.add_noise(x0, noise, sigma)
    velocity = flow.velocity_target(x0, noise)
    assert noised.dtype == torch.float32
    assert torch.equal(noised[0], x0[0]) and torch.equal(noised[2], noise[2])
    column = sigma.float().view(3, 1, 1, 1, 1)
    torch.testing.assert_close(noised - column * velocity, x0)
    torch.testing.assert_close(noised + (1 - column) * velocity, noise)


def test_a_timestep_is_sigma_in_thousandths() -> None:
    timestep = flow.timestep_of(flow.training_sigmas(SHIFT_5)[[0, 500]], SHIFT_5)
    assert timestep.dtype == torch.float32
    assert timestep.tolist() == pytest.approx([1000.0, 833.3333])

"""The denoising loop: which expert works when, with which guidance, and how the two predictions mix."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from mm_config.families import wan22
from mm_config.specs.diffusion import Expert, SamplerSpec, SigmaTable, Solver
from mm_infer.denoise import denoise, expert_for, guided_velocity
from mm_infer.passes import by_networks
from mm_infer.samplers import sigmas
from mm_models import Given

HIGH, LOW, SINGLE = Expert.HIGH_NOISE, Expert.LOW_NOISE, Expert.SINGLE
NOISE = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(3))
HALF = torch.full((2,), 500.0)
TEXT, NEGATIVE = torch.full((2, 6, 8), 2.0), torch.full((2, 6, 8), -1.0)


class Recorder:
    """A network that predicts `scale * mean(text)` everywhere and remembers what it was asked."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.calls: list[tuple[int, float]] = []

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        assert timestep.shape == (len(latents),) and len(text) == len(latents)
        self.calls.append((len(latents), float(timestep[0])))
        return self.scale * text.mean((1, 2)).view(-1, 1, 1, 1, 1).expand_as(latents)


@pytest.mark.parametrize(
    ("steps", "shift", "boundary", "high"),
    [(40, 12.0, 0.875, 26), (40, 5.0, 0.9, 15), (40, 3.0, 0.875, 12), (50, 3.0, 0.875, 15)],
)
def test_official_step_counts_of_both_experts(steps: int, shift: float, boundary: float, high: int):
    networks, taken = {HIGH: Recorder(0), LOW: Recorder(0)}, Counter[Expert]()
    sampler = SamplerSpec(steps=steps, shift=shift)

    def count(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
        taken.update([expert])

    denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), sampler, boundary, on_step=count)
    assert taken == {HIGH: high, LOW: steps - high}
    asked = [timestep for expert in (HIGH, LOW) for _, timestep in networks[expert].calls]
    assert asked == sampler.told_timesteps()
    assert len(networks[HIGH].calls) == high


@pytest.mark.parametrize(("steps", "shift", "high"), [(40, 3.0, 13), (50, 3.0, 16)])
def test_step_counts_on_the_table_of_diffusers(steps: int, shift: float, high: int):
    table = SamplerSpec(steps=steps, shift=shift, sigmas=SigmaTable.DIFFUSERS).told_timesteps()
    assert [expert_for(timestep, 0.875) for timestep in table].count(HIGH) == high


def test_the_boundary_itself_belongs_to_the_high_noise_expert():
    assert [expert_for(timestep, 0.875) for timestep in (876, 875, 874)] == [HIGH, HIGH, LOW]
    assert expert_for(999, None) is SINGLE


def test_each_guidance_reaches_its_expert():
    # With Euler and constant predictions the outcome sums (change of sigma) x (mixed velocity) over steps.
    networks = {HIGH: Recorder(1.0), LOW: Recorder(10.0)}
    sampler = SamplerSpec(
        steps=8, shift=5.0, solver=Solver.EULER, guidance_high_noise=4.0, guidance_low_noise=3.0
    )
    made = denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), sampler, 0.875)
    mixed = {HIGH: 1.0 * (-1 + 4.0 * 3), LOW: 10.0 * (-1 + 3.0 * 3)}
    change = sum(
        float(step) * mixed[expert_for(timestep, 0.875)]
        for step, timestep in zip(sigmas(sampler).diff(), sampler.told_timesteps(), strict=True)
    )
    assert networks[LOW].calls and networks[HIGH].calls
    torch.testing.assert_close(made, NOISE + change, rtol=0, atol=1e-4)


def test_one_forward_pass_per_step_of_twice_the_batch_or_without_guidance_of_the_batch():
    networks = {HIGH: Recorder(1.0), LOW: Recorder(1.0)}
    sampler = SamplerSpec(steps=8, shift=5.0, guidance_high_noise=4.0, guidance_low_noise=1.0)
    denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), sampler, 0.875)
    assert {size for size, _ in networks[HIGH].calls} == {4}
    assert {size for size, _ in networks[LOW].calls} == {2}
    assert len(networks[HIGH].calls) + len(networks[LOW].calls) == 8


def test_two_passes_of_guidance_are_what_one_of_twice_the_batch_is():
    recorder = Recorder(1.5)
    forward = by_networks({SINGLE: recorder})
    both = guided_velocity(forward, 0, SINGLE, NOISE, HALF, TEXT, NEGATIVE, 4.0)
    apart = guided_velocity(
        by_networks({SINGLE: recorder}),
        0,
        SINGLE,
        NOISE,
        torch.full((2,), 500.0),
        TEXT,
        NEGATIVE,
        4.0,
        batched=False,
    )
    assert recorder.calls == [(4, 500.0), (2, 500.0), (2, 500.0)]
    assert torch.equal(both, apart)


def test_a_distilled_network_takes_its_listed_steps_two_for_each_expert():
    networks = {HIGH: Recorder(0), LOW: Recorder(0)}
    denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), wan22.T2V_A14B_DISTILLED.sampler, boundary=0.875)
    # Without guidance each step is one pass of the batch itself.
    assert networks[HIGH].calls == [(2, 1000.0), (2, 937.5)]
    assert networks[LOW].calls == [(2, pytest.approx(2500 / 3, rel=1e-7)), (2, 625.0)]


def test_a_single_network_takes_the_high_noise_guidance_all_the_way():
    network = Recorder(1.0)
    sampler = SamplerSpec(steps=5, shift=5.0, guidance_high_noise=1.0, guidance_low_noise=3.0)
    denoise(NOISE, TEXT, NEGATIVE, by_networks({SINGLE: network}), sampler, None)
    assert [size for size, _ in network.calls] == [2] * 5


def test_predictions_of_half_precision_are_mixed_in_float32():
    def network(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        assert latents.dtype == text.dtype == torch.bfloat16
        return (latents * text.mean()).to(torch.bfloat16)

    latents, text = NOISE.bfloat16(), TEXT.bfloat16()
    mixed = guided_velocity(
        by_networks({SINGLE: network}),
        0,
        SINGLE,
        latents,
        torch.full((2,), 500.0),
        text,
        NEGATIVE.bfloat16(),
        3.0,
    )
    both = (torch.cat((latents, latents)) * torch.cat((text, NEGATIVE.bfloat16())).mean()).float().chunk(2)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, both[1] + 3.0 * (both[0] - both[1]), rtol=0, atol=0)
    walked = denoise(
        NOISE,
        TEXT,
        NEGATIVE,
        by_networks({SINGLE: network}),
        SamplerSpec(steps=2),
        None,
        dtype=torch.bfloat16,
    )
    assert walked.dtype == torch.float32


def test_the_solver_starts_anew_for_every_denoising():
    sampler, networks = SamplerSpec(steps=6, shift=5.0), {HIGH: Recorder(0.3), LOW: Recorder(0.2)}
    first = denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), sampler, 0.875)
    assert torch.equal(first, denoise(NOISE, TEXT, NEGATIVE, by_networks(networks), sampler, 0.875))


@pytest.mark.parametrize("batched", [True, False])
def test_both_passes_of_guidance_are_given_the_same_frames(batched: bool):
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def network(latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor) -> Tensor:
        seen.extend(zip(latents, timestep, image, strict=True))
        return text.mean((1, 2)).view(-1, 1, 1, 1, 1).expand(-1, *NOISE.shape[1:])

    given = Given(beside_BCTHW=torch.rand(2, 7, *NOISE.shape[2:]), image_BIK=torch.rand(2, 5, 3))
    sampler = SamplerSpec(steps=1, shift=5.0, guidance_high_noise=3.0)
    denoise(
        NOISE, TEXT, NEGATIVE, by_networks({SINGLE: network}), sampler, None, given=given, batched=batched
    )
    assert given.beside_BCTHW is not None and given.image_BIK is not None
    assert len(seen) == 4
    for place, (latents, timestep, image) in enumerate(seen):
        assert torch.equal(latents, torch.cat((NOISE[place % 2], given.beside_BCTHW[place % 2])))
        assert torch.equal(image, given.image_BIK[place % 2]) and float(timestep) == 999

"""Previews: x0 = x - sigma v of the steps that are asked for, in the colours of its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mm_infer
import mm_models
from mm_config import replace
from mm_config.options.run_options import RunOptions
from mm_config.running import runners
from mm_config.specs import GenerationRequest, InferSpec, Solver
from mm_infer.denoise import denoise
from mm_infer.samplers import sigmas
from mm_models.autoencoders.colours import cell_means

RED, BLUE = "a red circle moving right", "a blue square moving up"


@pytest.fixture
def tiny(spec: InferSpec) -> InferSpec:
    return replace(spec, {"num_frames": 9, "height": 32, "width": 64, "sampler.steps": 5})


def test_estimates_are_latents_less_their_noise(tiny: InferSpec) -> None:
    """By Euler's method the next latents are x + (next - sigma) v, so v follows from two neighbours."""
    sampler = replace(
        tiny.sampler, {"solver": Solver.EULER, "guidance_low_noise": 1.0, "guidance_high_noise": 1.0}
    )
    before: list[torch.Tensor] = [torch.randn(1, 12, 3, 4, 8)]
    estimates: list[tuple[int, torch.Tensor]] = []

    def forward(which: Any, latents: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.sin(3 * latents) + which.step

    denoise(
        before[0],
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1, 1),
        forward,
        sampler,
        tiny.boundary,
        on_step=lambda step, sigma, expert, latents: before.append(latents.clone()),
        on_estimate=lambda step, latents: estimates.append((step, latents)),
    )
    levels = sigmas(sampler).tolist()
    for step, estimate in estimates:
        velocity = (before[step + 1] - before[step]) / (levels[step + 1] - levels[step])
        torch.testing.assert_close(estimate, before[step] - levels[step] * velocity, atol=1e-4, rtol=1e-4)
    assert [step for step, _ in estimates] == [0, 1, 2, 3, 4]
    torch.testing.assert_close(estimates[-1][1], before[-1])


def test_previews_come_every_few_steps_and_end_as_the_video(tiny: InferSpec, options: RunOptions) -> None:
    pipeline = mm_infer.load(replace(tiny, {"runtime.preview_every": 2, "sampler.steps": 6}), options)
    seen: list[mm_infer.Preview] = []
    videos = pipeline([RED, BLUE], output="float", on_preview=seen.append)
    assert [(one.request.prompt, one.step) for one in seen] == [
        (prompt, step) for step in (2, 4, 6) for prompt in (RED, BLUE)
    ]
    for preview, video in zip(seen[-2:], videos, strict=True):
        assert preview.frames.shape == (3, 4, 8, 3) and preview.frames.dtype == torch.uint8
        latents = pipeline.denoise([video.request])
        means = cell_means(mm_models.build_autoencoder(tiny.autoencoder).decode(latents), 4, 8)
        expected = ((means[0].movedim(0, -1) / 2 + 0.5).clamp(0, 1) * 255).numpy()
        assert np.abs(preview.frames.numpy() - expected).max() <= 1.01
    assert not torch.equal(seen[0].frames, seen[-2].frames)


def test_without_a_number_each_step_has_a_preview(tiny: InferSpec, options: RunOptions) -> None:
    seen: list[int] = []
    mm_infer.load(tiny, options)([RED], on_preview=lambda preview: seen.append(preview.step))
    assert seen == [1, 2, 3, 4, 5]


def test_previews_change_no_video(tiny: InferSpec, options: RunOptions) -> None:
    pipeline = mm_infer.load(tiny, options)
    (plain,), (watched,) = pipeline([RED]), pipeline([RED], on_preview=lambda _: None)
    assert torch.equal(plain.frames, watched.frames)


def test_what_is_no_function_is_refused(tiny: InferSpec, options: RunOptions) -> None:
    wrong: Any = "yes"
    with pytest.raises(TypeError, match="on_preview"):
        mm_infer.load(tiny, options)([RED], on_preview=wrong)


def test_a_run_keeps_its_previews(tiny: InferSpec, options: RunOptions) -> None:
    asked = replace(tiny, {"runtime.preview_every": 2, "samples.prompts": (RED, BLUE), "samples.seeds": (5,)})
    folder = runners.run(asked, options).run_dir / "previews"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"{name}-5-step-000{step}.png"
        for name in ("a-blue-square-moving-up", "a-red-circle-moving-right")
        for step in (2, 4)
    ]
    pipeline, seen = mm_infer.load(asked, options), []
    pipeline([GenerationRequest(prompt=RED, seed=5)], on_preview=seen.append)
    picture = np.asarray(Image.open(folder / "a-red-circle-moving-right-5-step-0004.png"))
    assert picture.shape == (4, 3 * 8, 3)
    strip = np.concatenate([*seen[1].frames.numpy()], axis=1)
    assert np.abs(picture.astype(int) - strip).max() <= 1
    assert Path(folder.parent / "samples").is_dir()

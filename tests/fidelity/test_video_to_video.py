"""A video made of another one, against diffusers' `WanVideoToVideoPipeline` on the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan_video2video import WanVideoToVideoPipeline
from PIL import Image

from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import GenerationRequest, InferSpec, Solver
from mm_data import read_mp4, write_mp4
from mm_infer import load
from tests.fidelity.releases import NAME, make_release, spec_of
from tests.fidelity.test_pipelines import EULER, NEGATIVE, PROMPTS, UNIPC

SEED = 3
SAMPLERS = {"unipc": UNIPC, "euler": EULER}


def written(path: Path, spec: InferSpec, more: int = 2) -> np.ndarray:
    """A video of a spec's size with a few frames more; returns all its frames, as they are read."""
    draws = np.random.default_rng(1)
    frames = draws.integers(0, 256, (spec.num_frames + more, spec.height, spec.width, 3), np.uint8)
    write_mp4(path, frames, 30.0)
    return read_mp4(path).numpy()


@pytest.mark.parametrize("solver", SAMPLERS)
@pytest.mark.parametrize("strength", [0.4, 0.7, 1.0])
def test_a_video_of_a_video_is_that_of_diffusers(strength: float, solver: str, tmp_path: Path):
    spec = replace(spec_of(SAMPLERS[solver], None), {"negative_prompt": NEGATIVE, "runtime.device": "cpu"})
    release = make_release(tmp_path, spec)
    kept = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    theirs: Any = WanVideoToVideoPipeline(**{part: release.components[part] for part in kept})
    frames = written(tmp_path / "given.mp4", spec)[: spec.num_frames]
    expected = theirs(
        video=[Image.fromarray(frame) for frame in frames],
        prompt=PROMPTS[0],
        negative_prompt=NEGATIVE,
        height=spec.height,
        width=spec.width,
        num_inference_steps=spec.sampler.steps,
        guidance_scale=spec.sampler.guidance_high_noise,
        strength=strength,
        generator=torch.Generator("cpu").manual_seed(SEED),
        max_sequence_length=spec.text_encoder.max_tokens,
        output_type="latent",
    ).frames
    ours = load(spec, options=RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),))))
    request = GenerationRequest(
        prompt=PROMPTS[0], seed=SEED, video=str(tmp_path / "given.mp4"), strength=strength
    )
    steps: list[int] = []
    latents = ours.denoise([request], on_step=lambda step, *_: steps.append(step))
    assert float((latents - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    # int(6 * 0.4) = 2 and int(6 * 0.7) = 4 steps are taken, the last ones.
    assert steps == {0.4: [4, 5], 0.7: [2, 3, 4, 5], 1.0: [0, 1, 2, 3, 4, 5]}[strength]
    if strength == 0.4:
        alone = ours.denoise([attrs.evolve(request, strength=None, video=None)])
        assert float((latents - alone).abs().max()) > 0.1


def test_dpmpp_begins_at_its_first_order_wherever_the_strength_begins(tmp_path: Path):
    spec = replace(spec_of(attrs.evolve(UNIPC, solver=Solver.DPMPP_2M), None), "runtime.device", "cpu")
    make_release(tmp_path, spec)
    written(tmp_path / "given.mp4", spec)
    ours = load(spec, options=RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),))))
    asked = GenerationRequest(prompt=PROMPTS[0], video=str(tmp_path / "given.mp4"), strength=0.2)
    # One step to sigma 0 gives the prediction itself with every solver.
    last = ours.denoise([asked])
    euler = replace(spec, "sampler.solver", Solver.EULER)
    other = load(euler, options=RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),))))
    torch.testing.assert_close(last, other.denoise([asked]), rtol=1e-5, atol=1e-5)

"""Whole videos from prompts and seeds, against diffusers' `WanPipeline` on the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import GenerationRequest, InferSpec, NoiseDraw, SamplerSpec, SigmaTable, Solver
from mm_infer import load
from mm_infer.requests import noise_of
from tests.fidelity.releases import NAME, make_release, spec_of
from tests.fidelity.schedulers import EVEN

PROMPTS, SEEDS, NEGATIVE = ["a red circle moving right", "a blue square"], [3, 2**63], "a blue circle"
UNIPC = SamplerSpec(
    steps=6,
    shift=3.0,
    sigmas=SigmaTable.DIFFUSERS,
    noise=NoiseDraw.DIFFUSERS,
    guidance_high_noise=4.0,
    guidance_low_noise=3.0,
)
EULER = attrs.evolve(UNIPC, solver=Solver.EULER, sigmas=SigmaTable.DIFFUSERS_EULER)
OFFICIAL = attrs.evolve(UNIPC, shift=5.0, sigmas=SigmaTable.WAN_OFFICIAL)
FULL_RANGE = attrs.evolve(EULER, shift=5.0, sigmas=SigmaTable.FULL_RANGE)

CASES = {
    "wan2.1": spec_of(UNIPC, None),
    "wan2.1, euler": spec_of(EULER, None),
    "wan2.1, euler of the full range": spec_of(FULL_RANGE, None),
    "wan2.2, two experts": spec_of(UNIPC, 0.875),
    "wan2.2, official table": spec_of(OFFICIAL, 0.875),
    "wan2.2, euler": spec_of(EULER, 0.9),
    "wan2.2, a timestep per token": spec_of(UNIPC, None, expand=True),
}


def set_table(scheduler: Any, sampler: SamplerSpec) -> None:
    """Makes a scheduler walk a sampler's table where its own is another."""
    if sampler.sigmas in EVEN:
        levels, own = np.linspace(EVEN[sampler.sigmas], 0, sampler.steps + 1)[:-1], scheduler.set_timesteps
        scheduler.set_timesteps = lambda steps, device=None: own(sigmas=levels, device=device)


def asked(spec: InferSpec, negative: str | None, output_type: str) -> dict[str, Any]:
    """What a user of diffusers says for the videos of a spec."""
    two = {} if spec.boundary is None else {"guidance_scale_2": spec.sampler.guidance_low_noise}
    return {
        "prompt": PROMPTS,
        "negative_prompt": negative,
        "height": spec.height,
        "width": spec.width,
        "num_frames": spec.num_frames,
        "num_inference_steps": spec.sampler.steps,
        "guidance_scale": spec.sampler.guidance_high_noise,
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        "max_sequence_length": spec.text_encoder.max_tokens,
        "output_type": output_type,
        **two,
    }


@pytest.mark.parametrize("name", CASES)
def test_a_video_is_that_of_diffusers(name: str, tmp_path: Path):
    spec = replace(
        CASES[name], {"negative_prompt": NEGATIVE, "runtime.batch_size": 2, "runtime.device": "cpu"}
    )
    theirs = make_release(tmp_path, spec)
    set_table(theirs.scheduler, spec.sampler)
    ours = load(spec, options=RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),))))
    for negative, said in ((None, NEGATIVE), ("", None), ("a red square", "a red square")):
        requests = [
            GenerationRequest(prompt=prompt, seed=seed, negative_prompt=negative)
            for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
        ]
        expected = theirs(**asked(spec, said, "latent")).frames
        latents = ours.denoise(requests)
        assert float((latents - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    shown = theirs(**asked(spec, "a red square", "np")).frames
    assert shown.std() > 0.01
    # `export_to_video` cuts; a value at the border of two levels may fall to either side.
    pixels = torch.stack([video.frames for video in ours(requests)]).numpy()
    apart = pixels.astype(int) - (shown * 255).astype(np.uint8)
    assert np.abs(apart).max() <= 1 and (apart != 0).mean() <= 2e-3


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("name", ["wan2.1", "wan2.2, a timestep per token"])
def test_noise_is_what_diffusers_prepares(name: str, seed: int, tmp_path: Path):
    spec = CASES[name]
    from_text = make_release(tmp_path, spec)
    kept = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    parts: dict[str, Any] = {part: from_text.components[part] for part in kept}
    parts |= {"image_encoder": None, "image_processor": None}
    parts["expand_timesteps"] = from_text.config.expand_timesteps
    from_frame: Any = WanImageToVideoPipeline(**parts)
    asked_for: dict[str, Any] = {
        "batch_size": 1,
        "num_channels_latents": spec.autoencoder.latent_channels,
        "height": spec.height,
        "width": spec.width,
        "num_frames": spec.num_frames,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }
    frame = torch.zeros(1, 3, spec.height, spec.width)
    drawn = noise_of(spec, GenerationRequest(prompt="x", seed=seed))[None]
    for theirs in (
        from_text.prepare_latents(generator=torch.Generator("cpu").manual_seed(seed), **asked_for),
        from_frame.prepare_latents(frame, generator=torch.Generator("cpu").manual_seed(seed), **asked_for)[0],
    ):
        assert torch.equal(drawn, theirs)
    keyed = noise_of(
        replace(spec, "sampler.noise", NoiseDraw.KEYED), GenerationRequest(prompt="x", seed=seed)
    )
    assert not torch.equal(drawn, keyed[None])

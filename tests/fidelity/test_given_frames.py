"""Videos from given frames, against diffusers' `WanImageToVideoPipeline` on the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from mm_config import replace
from mm_config.options.locations import Location, Locations
from mm_config.options.run_options import RunOptions
from mm_config.specs import (
    ClipImageEncoderSpec,
    Conditioning,
    GenerationRequest,
    InferSpec,
    ReleasedWeights,
    SamplerSpec,
)
from mm_infer import load
from tests.fidelity.releases import NAME, make_release, spec_of
from tests.fidelity.test_pipelines import EULER, NEGATIVE, OFFICIAL, PROMPTS, SEEDS, UNIPC, set_table

SIDE = 32
"""Of the videos, and of what CLIP sees: neither side resizes, so both see the same pixels."""
CLIP = ClipImageEncoderSpec(
    weights=ReleasedWeights(name=NAME, subfolder="image_encoder"),
    image_dim=16,
    image_size=SIDE,
    patch_size=16,
    num_layers=3,
    num_heads=2,
    d_ff=24,
)


def given(spec: InferSpec, frames: int, *, clip: bool) -> InferSpec:
    """A spec that is given one frame or two, with features of them."""
    kinds = {1: Conditioning.FIRST_FRAME, 2: Conditioning.FIRST_AND_LAST_FRAME}
    positions = frames * CLIP.image_tokens if frames == 2 else None
    branch = {"model.image_dim": CLIP.image_dim, "image_encoder": CLIP, "model.image_positions": positions}
    # diffusers tells image tokens from text tokens by there being 512 of the text.
    branch["text_encoder.max_tokens"] = 512
    changes = {"model.conditioning": kinds[frames], "model.in_channels": 36, "width": SIDE}
    return replace(spec, changes | (branch if clip else {}))


def shaped(sampler: SamplerSpec, boundary: float | None, **fields: Any) -> InferSpec:
    return spec_of(attrs.evolve(sampler, steps=3), boundary, **fields)


CASES = {
    "wan2.1, one frame": given(shaped(UNIPC, None), 1, clip=True),
    "wan2.1, both frames": given(shaped(EULER, None), 2, clip=True),
    "wan2.2, two experts": given(shaped(OFFICIAL, 0.9), 1, clip=False),
    "wan2.2, a clean frame": shaped(UNIPC, None, expand=True),
}


def from_frames(folder: Path, spec: InferSpec) -> Any:
    """diffusers' pipeline on the parts of a release, which gets an image encoder where the spec has one."""
    text = make_release(folder, spec)
    parts: dict[str, Any] = {name: text.components[name] for name in text.components}
    parts |= {"image_encoder": None, "image_processor": None}
    if spec.image_encoder is not None:
        config = CLIPVisionConfig(
            hidden_size=CLIP.image_dim,
            intermediate_size=CLIP.d_ff,
            num_hidden_layers=CLIP.num_layers,
            num_attention_heads=CLIP.num_heads,
            image_size=CLIP.image_size,
            patch_size=CLIP.patch_size,
            hidden_act="gelu",
        )
        with torch.random.fork_rng():
            torch.manual_seed(6)
            encoder: Any = CLIPVisionModel(config).eval()
        encoder.save_pretrained(folder / "image_encoder")
        parts["image_encoder"] = encoder
        size: Any = {"shortest_edge": SIDE}
        parts["image_processor"] = CLIPImageProcessor(size=size, crop_size={"height": SIDE, "width": SIDE})
    parts |= {"boundary_ratio": spec.boundary, "expand_timesteps": text.config.expand_timesteps}
    pipeline: Any = WanImageToVideoPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(folder: Path, spec: InferSpec) -> dict[str, Image.Image]:
    """Files of noise, of the video's size."""
    noise = np.random.default_rng(3)
    shape = (spec.height, spec.width, 3)
    made = {
        str(folder / f"{name}.png"): Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8))
        for name in ("first-0", "first-1", "last-0", "last-1")
    }
    for file, image in made.items():
        image.save(file)
    return made


# One frame with features of it is a part of both frames with theirs.
SLOW = "wan2.1, one frame"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == SLOW else name for name in CASES]
)
def test_a_video_from_given_frames_is_that_of_diffusers(name: str, tmp_path: Path):
    spec = replace(CASES[name], {"runtime.batch_size": 2, "runtime.device": "cpu"})
    theirs, files = from_frames(tmp_path, spec), images(tmp_path, spec)
    set_table(theirs.scheduler, spec.sampler)
    has_last = spec.model.conditioning is Conditioning.FIRST_AND_LAST_FRAME
    requests = [
        GenerationRequest(
            prompt=prompt,
            seed=seed,
            negative_prompt=NEGATIVE,
            image=str(tmp_path / f"first-{index}.png"),
            last_image=str(tmp_path / f"last-{index}.png") if has_last else None,
        )
        for index, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True))
    ]
    options = RunOptions(locations=Locations((Location(NAME, tmp_path, "test"),)))
    pipeline = load(spec, options=options)
    two = {} if spec.boundary is None else {"guidance_scale_2": spec.sampler.guidance_low_noise}
    expected = torch.cat(
        [
            theirs(
                image=files[str(request.image)],
                last_image=files.get(str(request.last_image)),
                prompt=request.prompt,
                negative_prompt=NEGATIVE,
                height=spec.height,
                width=spec.width,
                num_frames=spec.num_frames,
                num_inference_steps=spec.sampler.steps,
                guidance_scale=spec.sampler.guidance_high_noise,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                max_sequence_length=spec.text_encoder.max_tokens,
                output_type="latent",
                **two,
            ).frames
            for request in requests
        ]
    )
    scale = float(expected.abs().max())
    apart = float((pipeline.denoise(requests) - expected).abs().max()) / scale
    print(f"{name}: {apart:.1e} of the largest latent")
    assert apart <= 1e-5
    (other,) = pipeline.denoise([attrs.evolve(requests[1], image=requests[0].image)])
    assert float((other - expected[1]).abs().max()) > 1e-3 * scale

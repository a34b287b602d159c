"""What an inference spec becomes by what a request chooses in its place, and by which its video is made."""

from __future__ import annotations

from typing import Any

import attrs

from mm_config.rules.sizes import AREAS, cells, meant_ratio, ratio_of, size_of
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest, RequestSetting

SETTINGS = {
    "num_frames": RequestSetting.FRAMES,
    "height": RequestSetting.SIZE,
    "width": RequestSetting.SIZE,
    "resolution": RequestSetting.SIZE,
    "aspect_ratio": RequestSetting.SIZE,
    "steps": RequestSetting.STEPS,
    "solver": RequestSetting.SAMPLER,
    "shift": RequestSetting.SAMPLER,
    "guidance_high_noise": RequestSetting.SAMPLER,
    "guidance_low_noise": RequestSetting.SAMPLER,
}
"""Fields of a request that take the place of the spec's, by what has to be allowed for them."""
OF_SAMPLER = ("steps", "solver", "shift", "guidance_high_noise", "guidance_low_noise")
"""Those that stand in the spec's sampler."""


def chosen(request: GenerationRequest) -> dict[str, Any]:
    """What a request chooses in place of its spec, by its own fields."""
    return {name: value for name in SETTINGS if (value := getattr(request, name)) is not None}


def spec_of(spec: InferSpec, request: GenerationRequest) -> InferSpec:
    """The spec that the video of a request is made by; a given image or video may still alter its size.

    A resolution and an aspect ratio give the size that is nearest to the ratio in whole tokens at the
    resolution's area (`sizes.size_of`); what is not said of both is the spec's.

    Args:
        spec: The inference spec itself: what was made of it by a request says another area.
        request: One that `request_problems` finds nothing wrong with.
    """
    said = chosen(request)
    sampler = {name: said[name] for name in OF_SAMPLER if name in said}
    changes = {name: said[name] for name in ("num_frames", "height", "width") if name in said}
    if "resolution" in said or "aspect_ratio" in said:
        changes["height"], changes["width"] = resolved_size(spec, request)
    if not said:
        return spec
    return attrs.evolve(spec, **changes, sampler=attrs.evolve(spec.sampler, **sampler))


def resolved_size(spec: InferSpec, request: GenerationRequest) -> tuple[int, int]:
    """Height and width of a request's resolution and aspect ratio; a side is 0 where no token fits."""
    cell = cells(spec.model, spec.autoencoder)
    area = spec.height * spec.width if request.resolution is None else AREAS[request.resolution]
    said = None if request.aspect_ratio is None else ratio_of(request.aspect_ratio)
    return size_of(said or meant_ratio(spec.height, spec.width, cell), area, cell)


def first_step(spec: InferSpec, request: GenerationRequest) -> int:
    """The denoising step that a request's video begins with, from 0: with a given video, the share of steps
    that its strength says is taken, cut to whole steps as in diffusers' `WanVideoToVideoPipeline`.

    Args:
        spec: What `spec_of` makes of the inference spec.
        request: The request.
    """
    steps = spec.sampler.steps
    return 0 if request.strength is None else steps - int(steps * request.strength)

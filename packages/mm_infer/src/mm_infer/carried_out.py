"""What this package makes of an inference spec, and the refusal of all else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mm_config.rules import CarriedOut, beyond
from mm_config.schema import Problem
from mm_config.specs import GenerationRequest, GuidanceMode, InferSpec
from mm_models import PART_FIELDS, determinism_problems

RUNNER = "generation"
REQUEST_FIELDS = (
    "negative_prompt_may_be_empty",
    "image",
    "last_image",
    "video",
    "strength",
    "num_frames",
    "height",
    "width",
    "resolution",
    "aspect_ratio",
    "steps",
    "solver",
    "shift",
    "guidance_high_noise",
    "guidance_low_noise",
)
"""Later fields of requests that are carried out."""


def request_refusals(requests: Sequence[GenerationRequest]) -> Iterator[Problem]:
    """What generation would have to ignore of requests: one problem for each field."""
    for index, request in enumerate(requests):
        yield from beyond(request, REQUEST_FIELDS, RUNNER, f"request {index}")


def _value_problems(spec: InferSpec) -> Iterator[Problem]:
    """Values of known fields that generation can't do yet."""
    runtime = spec.runtime
    yield from determinism_problems(runtime.deterministic, runtime.attention, runtime.compile)
    if spec.runtime.guidance is GuidanceMode.PARALLEL:
        yield Problem(
            "runtime.guidance", f"is parallel, which {RUNNER} can't do yet; batched or sequential can"
        )


CARRIED_OUT = CarriedOut(
    runner=RUNNER,
    fields=PART_FIELDS
    | {
        "high_noise.average",
        "high_noise.digest",
        "low_noise.average",
        "low_noise.digest",
        "negative_prompt",
        "float32_residual",
        "samples.images",
        "samples.last_images",
        "samples.wanted",
        "requests_may_set",
        "image_fit",
        "image_background",
        "distilled",
        "loras",
        "sampler.timesteps",
        "sampler.noise",
        "sampler.guidance_interval",
        "sampler.guidance_rescale",
        "runtime.guidance",
    },
    problems=_value_problems,
)

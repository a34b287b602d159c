"""Rules between the fields of an inference spec."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.adapters import applied_problems, network_problems
from mm_config.rules.clips import size_problems
from mm_config.rules.conditioning import conditioning_problems, sample_problems
from mm_config.rules.encoders import text_problems
from mm_config.rules.experts import trained_expert_problems, trained_problems
from mm_config.rules.modules import quantization_problems
from mm_config.rules.precision import attention_problems
from mm_config.rules.ranks import head_problems
from mm_config.rules.sampling import guidance_problems, shortcut_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.diffusion import Expert
from mm_config.specs.infer import InferSpec


def infer_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """Everything that does not depend on the number of ranks; paths start inside the spec.

    Args:
        spec: The inference spec.
        path: Where it stands, for messages that name a second field.
    """
    yield from conditioning_problems(spec, path)
    yield from text_problems(spec, path)
    yield from size_problems((spec.num_frames, spec.height, spec.width), spec.model, spec.autoencoder)
    yield from _weights_problems(spec, path)
    yield from guidance_problems(spec, path)
    yield from shortcut_problems(spec, path)
    yield from quantization_problems(spec)
    yield from prefixed(head_problems(spec.runtime.parallel, spec.model, path), "runtime.parallel")
    yield from attention_problems(spec, path)
    yield from sample_problems(spec)


def _weights_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    if spec.boundary is None and spec.low_noise is not None:
        yield Problem("low_noise", f"must be None for a single network ({path}.boundary is None)")
    if spec.boundary is not None and spec.low_noise is None:
        yield Problem("low_noise", f"is missing, but {path}.boundary {spec.boundary} needs two experts")
    shared = {
        "model": ("model", spec.model),
        "autoencoder": ("autoencoder", spec.autoencoder),
        "text_encoder": ("text_encoder", spec.text_encoder),
        "image_encoder": ("image_encoder", spec.image_encoder),
        "diffusion.boundary": ("boundary", spec.boundary),
    }
    high = Expert.SINGLE if spec.boundary is None else Expert.HIGH_NOISE
    for name, weights, expert in (
        ("high_noise", spec.high_noise, high),
        ("low_noise", spec.low_noise, Expert.LOW_NOISE),
    ):
        yield from trained_problems(weights, name, shared, path)
        yield from trained_expert_problems(weights, name, expert)
        yield from network_problems(weights, name)
    yield from applied_problems(spec, path, shared)

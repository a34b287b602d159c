"""Rules of whole specs: of a training, of an inference spec, and of the label that all of them have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mm_config.rules.clips import clip_problems, size_problems
from mm_config.rules.conditioning import conditioning_problems, sample_problems
from mm_config.rules.data import kept_latents_problems
from mm_config.rules.encoders import text_problems
from mm_config.rules.modules import quantization_problems, sharding_problems, trainable_problems
from mm_config.rules.precision import attention_problems
from mm_config.rules.ranks import head_problems
from mm_config.rules.sampling import expert_problems, guidance_problems, shortcut_problems
from mm_config.rules.schedules import step_problems
from mm_config.rules.weights import start_problems, used_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.schema.root import RootSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec


def label_problems(spec: RootSpec) -> Iterator[Problem]:
    """A label that can't be a folder below the runs folder; an empty one takes another in its place."""
    if spec.name and not re.fullmatch(r"[^\W_][^/\\\0]*", spec.name):
        yield Problem(
            "name", f"must be a folder's name that starts with a letter or a digit, got {spec.name!r}"
        )


def train_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """Everything that does not depend on the number of ranks; paths start inside the spec.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    yield from conditioning_problems(spec, path)
    yield from text_problems(spec, path)
    yield from prefixed(clip_problems(spec.data, spec.model, spec.autoencoder), "data")
    yield from kept_latents_problems(spec.data, spec.autoencoder)
    yield from expert_problems(spec.expert, spec.diffusion.boundary, path)
    yield from start_problems(spec, path)
    yield from trainable_problems(spec)
    yield from sharding_problems(spec)
    yield from prefixed(head_problems(spec.parallel, spec.model, path), "parallel")
    yield from attention_problems(spec, path)
    yield from step_problems(spec, path)


def infer_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """As `train_problems`, for generation."""
    yield from conditioning_problems(spec, path)
    yield from text_problems(spec, path)
    yield from size_problems((spec.num_frames, spec.height, spec.width), spec.model, spec.autoencoder)
    yield from used_problems(spec, path)
    yield from guidance_problems(spec, path)
    yield from shortcut_problems(spec, path)
    yield from quantization_problems(spec)
    yield from prefixed(head_problems(spec.runtime.parallel, spec.model, path), "runtime.parallel")
    yield from attention_problems(spec, path)
    yield from sample_problems(spec)

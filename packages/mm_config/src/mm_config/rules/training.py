"""Rules between the fields of a training spec."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.adapters import lora_problems
from mm_config.rules.clips import clip_problems
from mm_config.rules.conditioning import conditioning_problems
from mm_config.rules.continuing import continuing_problems
from mm_config.rules.data import kept_latents_problems
from mm_config.rules.encoders import text_problems
from mm_config.rules.experts import expert_problems, trained_problems
from mm_config.rules.modules import sharding_problems, trainable_problems
from mm_config.rules.precision import attention_problems
from mm_config.rules.ranks import head_problems
from mm_config.rules.schedules import step_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.train import TrainSpec


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
    yield from trained_problems(spec.start_from, "start_from", {"model": ("model", spec.model)}, path)
    yield from continuing_problems(spec, path)
    yield from lora_problems(spec, path)
    yield from trainable_problems(spec)
    yield from sharding_problems(spec)
    yield from prefixed(head_problems(spec.parallel, spec.model, path), "parallel")
    yield from attention_problems(spec, path)
    yield from step_problems(spec, path)

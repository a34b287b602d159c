"""What a checkpoint of ours says of its training, held against what a generation uses it as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_config.schema import Problem, UserError
from mm_config.specs import Expert, InferSpec, TrainSpec
from mm_models import stored_spec

_WORDS = {
    Expert.HIGH_NOISE: "the high-noise expert",
    Expert.LOW_NOISE: "the low-noise expert",
    Expert.SINGLE: "a single network",
}


def check_trained_as(expert: Expert, spec: InferSpec, path: Path) -> None:
    """Weights fit either expert by their shapes; the spec that made a checkpoint lies in it and says more.

    Args:
        expert: What the weights or the adapter are used as.
        spec: The generation.
        path: Where they lie; what is no checkpoint of a training says nothing.

    Raises:
        UserError: They were trained as another expert, or with another boundary.
    """
    trained = stored_spec(path)
    if isinstance(trained, TrainSpec) and (problems := list(_problems(trained, expert, spec, str(path)))):
        raise UserError(problems)


def _problems(trained: TrainSpec, expert: Expert, spec: InferSpec, path: str) -> Iterator[Problem]:
    boundary = trained.diffusion.boundary
    if trained.expert is not expert:
        yield Problem(path, f"was trained as {_WORDS[trained.expert]}, and is used as {_WORDS[expert]} here")
    elif boundary != spec.boundary:
        told = f"was trained with a boundary of {boundary}, but spec.boundary is {spec.boundary}"
        yield Problem(path, told)

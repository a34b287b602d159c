"""Rules on the boundary between two experts and on the runs that weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.diff import diff, show_value
from mm_config.errors import Problem
from mm_config.schema import SEMANTIC
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.kinds import Weights
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy


def grid_problems(diffusion: FlowMatchingSpec) -> Iterator[Problem]:
    """Both experts need a point of the training grid; sigma = 1, the first, is always high noise."""
    count, shift, boundary = diffusion.num_train_timesteps, diffusion.shift, diffusion.boundary
    smallest = (shift / count) / (1 + (shift - 1) / count)
    if boundary is not None and boundary <= smallest:
        yield Problem(
            "boundary",
            f"{boundary} leaves no noise level for the low-noise expert; the grid of {count} points with "
            f"shift {shift} ends at {smallest:.6g}",
        )


def expert_problems(expert: Expert, boundary: float | None, path: str) -> Iterator[Problem]:
    """An expert of two needs a boundary, a single network has none."""
    if expert is Expert.SINGLE and boundary is not None:
        yield Problem(
            "expert",
            f"is single, but {path}.diffusion.boundary is {boundary}; choose high_noise or low_noise, "
            "or set the boundary to None",
        )
    if expert is not Expert.SINGLE and boundary is None:
        yield Problem(
            "expert", f"is {expert.value}, which needs {path}.diffusion.boundary; Wan2.2 T2V has 0.875"
        )


def trained_problems(
    weights: Weights | None, name: str, expected: dict[str, Any], path: str
) -> Iterator[Problem]:
    """Weights that come from a training must come from one of the same network and encoders.

    Args:
        weights: The value of the field `name`.
        name: The field that holds the weights.
        expected: What the training spec must hold, by path inside it: each value is a pair of the
            path inside the using spec and the value there, `{"diffusion.boundary": ("boundary", 0.875)}`.
        path: Canonical path of the spec that uses the weights.
    """
    if not isinstance(weights, TrainedBy):
        return
    training = weights.spec
    if not isinstance(training, TrainSpec):
        yield Problem(f"{name}.spec", f"must be a training spec, got {type(training).__name__}")
        return
    for inside, (outside, wanted) in expected.items():
        value: Any = training
        for segment in inside.split("."):
            value = getattr(value, segment)
        for change in diff(wanted, value):
            if change.role is SEMANTIC:
                below = change.path.removeprefix("spec")
                yield Problem(
                    f"{name}.spec.{inside}{below}",
                    f"was trained with {show_value(change.new)}, but {path}.{outside}{below} is "
                    f"{show_value(change.old)}",
                )


def trained_expert_problems(weights: Weights | None, name: str, wanted: Expert) -> Iterator[Problem]:
    """Weights of an expert must come from the training of that expert."""
    training = weights.spec if isinstance(weights, TrainedBy) else None
    if isinstance(training, TrainSpec) and training.expert is not wanted:
        yield Problem(f"{name}.spec.expert", f"must be {wanted.value}, got {training.expert.value}")

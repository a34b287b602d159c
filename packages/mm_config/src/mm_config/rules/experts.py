"""Rules on the boundary between two experts and on the runs that weights come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mm_config.rules.wording import idle_problems
from mm_config.schema.diff import Change, diff, for_person
from mm_config.schema.errors import Problem
from mm_config.schema.fields import SEMANTIC
from mm_config.specs.diffusion import Expert, FlowMatchingSpec, TimestepSampling
from mm_config.specs.kinds import Weights
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy


def grid_problems(diffusion: FlowMatchingSpec) -> Iterator[Problem]:
    """The grid falls, each expert has a point of it, and no setting is given that its sampling leaves out."""
    yield from _sampling_problems(diffusion)
    if diffusion.sigma_min >= diffusion.sigma_max:
        yield Problem("sigma_min", f"is {diffusion.sigma_min}, not below sigma_max {diffusion.sigma_max}")
        return
    if diffusion.boundary is None:
        return
    largest, smallest = grid_ends(diffusion)
    shown = f"the grid of {diffusion.num_train_timesteps} points with shift {diffusion.shift}"
    if diffusion.boundary <= smallest:
        yield Problem(
            "boundary",
            f"{diffusion.boundary} leaves no noise level for the low-noise expert; {shown} ends at "
            f"{smallest:.6g}",
        )
    if diffusion.boundary > largest:
        yield Problem(
            "boundary",
            f"{diffusion.boundary} leaves no noise level for the high-noise expert; {shown} begins at "
            f"{largest:.6g}",
        )


def grid_ends(diffusion: FlowMatchingSpec) -> tuple[float, float]:
    """The largest and the smallest noise level of the training grid, shifted."""
    most, least, count = diffusion.sigma_max, diffusion.sigma_min, diffusion.num_train_timesteps
    gaps = count if diffusion.drop_last else max(count - 1, 1)
    last = most - (most - least) * (count - 1) / gaps
    # 1 + (s - 1) u, written so that it stays above 0 for every shift.
    largest, smallest = (diffusion.shift * u / (1 - u + diffusion.shift * u) for u in (most, last))
    return largest, smallest


def _sampling_problems(diffusion: FlowMatchingSpec) -> Iterator[Problem]:
    if diffusion.sampling is not TimestepSampling.LOGIT_NORMAL:
        yield from idle_problems(diffusion, ["logit_mean", "logit_std"], "sampling = logit_normal")
    if diffusion.sampling is not TimestepSampling.MODE:
        yield from idle_problems(diffusion, ["mode_scale"], "sampling = mode")


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
            "expert",
            f"is {expert.value}, one of two, which needs {path}.diffusion.boundary (Wan2.2 T2V: 0.875, I2V: "
            "0.9); choose single for a single network, or give the boundary",
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
        for change in _outermost(diff(wanted, value)):
            if change.role is SEMANTIC:
                below = change.path.removeprefix("spec")
                yield Problem(
                    f"{name}.spec.{inside}{below}",
                    f"was trained with {for_person(change.new)}, but {path}.{outside}{below} is "
                    f"{for_person(change.old)}",
                )


def trained_expert_problems(weights: Weights | None, name: str, wanted: Expert) -> Iterator[Problem]:
    """Weights of an expert must come from the training of that expert."""
    training = weights.spec if isinstance(weights, TrainedBy) else None
    if isinstance(training, TrainSpec) and training.expert is not wanted:
        yield Problem(f"{name}.spec.expert", f"must be {wanted.value}, got {training.expert.value}")


def _outermost(changes: Iterable[Change]) -> Iterator[Change]:
    """Where the class of a spec differs, its fields are not compared."""
    above: str | None = None
    for change in changes:
        if above is None or not change.path.startswith(f"{above}."):
            yield change
            above = change.path

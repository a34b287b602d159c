"""Rules on runs that take over more than weights from the training they start from."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.experts import trained_problems
from mm_config.schema.diff import for_person
from mm_config.schema.errors import Problem
from mm_config.specs.optim import AdamWSpec
from mm_config.specs.train import StartMode, TrainSpec
from mm_config.specs.weights import TrainedBy

EXACT_FIELDS = (
    "expert",
    "diffusion",
    "autoencoder",
    "text_encoder",
    "image_encoder",
    "data",
    "optim",
    "schedule.warmup_steps",
    "schedule.warmup_ratio",
    "frozen",
    "lora",
    "ema",
    "precision",
    "seed",
)
"""What decides the steps that were made; the decay after them may be chosen anew."""


def continuing_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """An optimizer's state comes from a training alone, and has to fit.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    mode, start = spec.start_mode, spec.start_from
    if mode is StartMode.WEIGHTS:
        return
    if not isinstance(start, TrainedBy):
        yield Problem(
            "start_mode",
            f"is {mode.value}, which goes on with a training's optimizer, but {path}.start_from is "
            f"{for_person(start)}, which has none; choose weights, or start from TrainedBy(...)",
        )
    elif isinstance(start.spec, TrainSpec) and mode is StartMode.EXACT:
        yield from _exact_problems(spec, start.spec, path)
    elif isinstance(start.spec, TrainSpec):
        yield from _restart_problems(spec, start.spec, path)


def _exact_problems(spec: TrainSpec, before: TrainSpec, path: str) -> Iterator[Problem]:
    expected = {name: (name, _inside(spec, name)) for name in EXACT_FIELDS}
    for problem in trained_problems(spec.start_from, "start_from", expected, path):
        yield Problem(problem.path, f"{problem.message}; {path}.start_mode exact needs them equal")
    held_out = (_holdout(before), _holdout(spec))
    if held_out[0] != held_out[1]:
        yield Problem(
            "validation",
            f"keeps {held_out[1]} of the clips out of training, but the training before kept {held_out[0]}; "
            f"{path}.start_mode exact needs them equal",
        )
    if spec.schedule.steps <= before.schedule.steps:
        yield Problem(
            "schedule.steps",
            f"is {spec.schedule.steps}, but the training that goes on has made {before.schedule.steps}; "
            f"at least {before.schedule.steps + 1}",
        )


def _restart_problems(spec: TrainSpec, before: TrainSpec, path: str) -> Iterator[Problem]:
    """The moments of the same parameters, in the same form."""
    names = ["lora.rank", "lora.targets"] if spec.lora and before.lora else ["lora", "frozen"]
    if type(spec.optim) is not type(before.optim):
        yield Problem(
            "start_from.spec.optim",
            f"is {for_person(before.optim)}, whose state {for_person(spec.optim)} in {path}.optim can't take "
            "over; choose start_mode weights",
        )
    elif isinstance(spec.optim, AdamWSpec):
        names.append("optim.state_bits")
    expected = {name: (name, _inside(spec, name)) for name in names}
    for problem in trained_problems(spec.start_from, "start_from", expected, path):
        yield Problem(problem.path, f"{problem.message}; {path}.start_mode restart needs them equal")


def _holdout(spec: TrainSpec) -> float:
    return 0.0 if spec.validation is None else spec.validation.holdout


def _inside(spec: TrainSpec, path: str) -> object:
    value: object = spec
    for name in path.split("."):
        value = getattr(value, name)
    return value

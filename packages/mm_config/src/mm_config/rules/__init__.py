"""Rules between fields: one function that every verb and every runner asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mm_config.errors import Problem, SpecError, prefixed
from mm_config.rules.encoders import encoder_problems
from mm_config.rules.generation import infer_problems, rank_problems
from mm_config.rules.labels import label_problems
from mm_config.rules.training import batch_problems, train_problems
from mm_config.schema import class_of, is_spec, spec_fields
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import RootSpec
from mm_config.specs.train import TrainSpec
from mm_config.typing_checks import is_tuple


def problems(spec: Any, world_size: int | None = None) -> list[Problem]:
    """Everything that is wrong between the fields of a spec and of the specs inside it.

    Args:
        spec: Any spec; a spec class can add rules of its own by a `problems()` method.
        world_size: Ranks that the run is spread over; None leaves rules about ranks out.

    Returns:
        One problem per broken rule, with the canonical path (`spec.data.num_frames`), no two alike.
    """
    found = list(_walk(spec, "spec"))
    if isinstance(spec, TrainSpec):
        found += prefixed(batch_problems(spec, world_size), "spec")
    if isinstance(spec, InferSpec):
        found += prefixed(rank_problems(world_size), "spec")
    return list(dict.fromkeys(found))


def check(spec: Any, world_size: int | None = None) -> None:
    """Raises SpecError with all problems, if there are any."""
    if found := problems(spec, world_size):
        raise SpecError(found)


def _walk(value: Any, path: str) -> Iterator[Problem]:
    if is_tuple(value):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}")
    if not is_spec(value):
        return
    if own_rules := getattr(value, "problems", None):
        yield from prefixed(own_rules(), path)
    yield from prefixed(encoder_problems(value), path)
    if isinstance(value, RootSpec):
        yield from prefixed(label_problems(value), path)
    if isinstance(value, TrainSpec):
        yield from prefixed(train_problems(value, path), path)
    if isinstance(value, InferSpec):
        yield from prefixed(infer_problems(value, path), path)
    for attribute in spec_fields(class_of(value)):
        yield from _walk(getattr(value, attribute.name), f"{path}.{attribute.name}")

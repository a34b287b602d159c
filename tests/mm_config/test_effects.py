"""What a change of each field alters."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest

from experiments import tiny, tiny_low, wan22_t2v
from mm_config.schema.decorator import spec
from mm_config.schema.evolve import leaves
from mm_config.schema.fields import (
    EXECUTION,
    LOCATION,
    SEMANTIC,
    Effect,
    Role,
    field,
    field_types,
    info_of,
    narrowed,
    spec_fields,
)
from mm_config.schema.root import RootSpec, effect_of
from mm_config.schema.types import is_spec_class, is_union
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.stored.structuring import known_specs

OWN = [cls for cls in known_specs().values() if cls.__module__.startswith("mm_")]


def fields_of(
    cls: type[Any], prefix: str = "", outer: Role = SEMANTIC, around: tuple[type[Any], ...] = ()
) -> Iterator[tuple[str, Role]]:
    """Every path at which specs of a class can differ, with the role in force."""
    for attribute in spec_fields(cls):
        info = info_of(attribute)
        path, role = prefix + attribute.name, narrowed(outer, info.role)
        yield path, role
        for kind in [] if info.by_hash else classes_in(field_types(cls)[attribute.name]):
            if kind not in around:
                yield from fields_of(kind, f"{path}.", role, (*around, cls))


def classes_in(expected: Any) -> list[type[Any]]:
    if is_union(expected) or typing.get_origin(expected) is tuple:
        return [cls for argument in typing.get_args(expected) for cls in classes_in(argument)]
    if not isinstance(expected, type):
        return []
    kinds = [cls for cls in OWN if issubclass(cls, expected)]
    return [expected] if is_spec_class(expected) and expected not in kinds else kinds


def test_the_enumeration_reaches_what_an_experiment_holds() -> None:
    for value in (tiny.SPEC, tiny_low.SPEC):
        known = dict(fields_of(type(value)))
        found = {leaf.path: leaf.role for leaf in leaves(value, by_hash=False)}
        assert found.items() <= known.items()


@pytest.mark.parametrize("cls", [TrainSpec, InferSpec])
def test_what_is_said_of_the_inside_of_a_field_is_said_of_fields_that_exist(cls: type[Any]) -> None:
    roles = dict(fields_of(cls))
    for attribute in spec_fields(cls):
        info = info_of(attribute)
        assert {f"{attribute.name}.{path}" for path in info.short_names} <= roles.keys()
        assert {roles[f"{attribute.name}.{path}"] for path in info.effects} <= {SEMANTIC}


@pytest.mark.parametrize(
    ("path", "role", "effect"),
    [
        ("spec.optim.lr", SEMANTIC, Effect.MATHEMATICS),
        ("spec.model", SEMANTIC, Effect.MATHEMATICS),
        ("spec.diffusion.shift", SEMANTIC, Effect.MATHEMATICS),
        ("spec.data.batch_size", SEMANTIC, Effect.DATA_ORDER),
        ("spec.seed", SEMANTIC, Effect.DATA_ORDER),
        ("spec.data.workers", EXECUTION, Effect.EXECUTION),
        ("spec.name", LOCATION, Effect.LABEL),
        ("spec.start_from.spec.data.height", SEMANTIC, Effect.DATA_ORDER),
        ("spec.start_from", SEMANTIC, Effect.WEIGHTS),
    ],
)
def test_an_effect_is_that_in_the_innermost_run(path: str, role: Role, effect: Effect) -> None:
    assert effect_of(tiny_low.SPEC, path, role) is effect


def test_the_longest_prefix_counts() -> None:
    assert effect_of(tiny.SPEC, "spec.samples.seeds.1", SEMANTIC) is Effect.REQUESTS
    assert effect_of(tiny.SPEC, "spec.samples.scorer.revision", SEMANTIC) is Effect.MEASUREMENT
    assert effect_of(tiny.SPEC, "spec.low_noise", SEMANTIC) is Effect.WEIGHTS
    assert (
        effect_of(tiny.SPEC, "spec.low_noise.spec.start_from.spec.optim.lr", SEMANTIC) is Effect.MATHEMATICS
    )
    assert effect_of(wan22_t2v.SPEC, "spec.autoencoder.weights.name", SEMANTIC) is Effect.WEIGHTS
    assert effect_of(wan22_t2v.SPEC, "spec.autoencoder.dim_mult", SEMANTIC) is Effect.MATHEMATICS


@spec("effectless-root")
class Effectless(RootSpec):
    """A kind of another package that says nothing of effects."""

    name: str = field(default="", role=LOCATION)
    size: int = 1
    workers: int = field(default=1, role=EXECUTION)


def test_a_field_that_says_no_effect_alters_the_result() -> None:
    assert effect_of(Effectless(), "spec.size", SEMANTIC) is Effect.RESULT
    assert effect_of(Effectless(), "spec.workers", EXECUTION) is Effect.EXECUTION
    assert effect_of(Effectless(), "spec.name", LOCATION) is Effect.LABEL

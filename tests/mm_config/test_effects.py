"""What a change of each field alters."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest

from experiments import tiny, tiny_low
from mm_config.schema.decorator import (
    EXECUTION,
    LOCATION,
    SEMANTIC,
    Role,
    field_types,
    info_of,
    is_spec_class,
    narrowed,
    spec_fields,
    tag_of,
)
from mm_config.schema.effects import TABLES, Effect, effect_in, effect_of
from mm_config.schema.evolve import leaves
from mm_config.schema.types import is_union
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.stored.structuring import known_specs

OWN = [cls for cls in known_specs().values() if cls.__module__.startswith("mm_")]


def fields_of(cls: type[Any], prefix: str = "", outer: Role = SEMANTIC) -> Iterator[tuple[str, Role]]:
    """Every path at which specs of a class can differ, with the role in force."""
    for attribute in spec_fields(cls):
        info = info_of(attribute)
        path, role = prefix + attribute.name, narrowed(outer, info.role)
        yield path, role
        for kind in [] if info.by_hash else classes_in(field_types(cls)[attribute.name]):
            yield from fields_of(kind, f"{path}.", role)


def classes_in(expected: Any) -> list[type[Any]]:
    if is_union(expected) or typing.get_origin(expected) is tuple:
        return [cls for argument in typing.get_args(expected) for cls in classes_in(argument)]
    if not isinstance(expected, type):
        return []
    kinds = [cls for cls in OWN if issubclass(cls, expected)]
    return [expected] if is_spec_class(expected) and expected not in kinds else kinds


@pytest.mark.parametrize("cls", [TrainSpec, InferSpec])
def test_every_field_of_a_run_has_a_note(cls: type[Any]) -> None:
    kind = tag_of(cls)
    unknown = {path for path, role in fields_of(cls) if effect_in(kind, path, role) is Effect.RESULT}
    assert not unknown, f"say what a change of these alters: {unknown}"


def test_the_enumeration_reaches_what_an_experiment_holds() -> None:
    for value in (tiny.SPEC, tiny_low.SPEC):
        known = dict(fields_of(type(value)))
        found = {leaf.path: leaf.role for leaf in leaves(value, by_hash=False)}
        assert found.items() <= known.items()


@pytest.mark.parametrize(("kind", "cls"), [("train", TrainSpec), ("infer", InferSpec)])
def test_the_tables_name_semantic_fields_only(kind: str, cls: type[Any]) -> None:
    semantic = {path for path, role in fields_of(cls) if role is SEMANTIC}
    assert set(TABLES[kind]) <= semantic
    assert Effect.RESULT not in TABLES[kind].values()


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
    assert effect_in("infer", "autoencoder.weights.name", SEMANTIC) is Effect.WEIGHTS
    assert effect_in("infer", "autoencoder.dim_mult", SEMANTIC) is Effect.MATHEMATICS


def test_a_kind_without_a_table_alters_the_result() -> None:
    assert effect_in("other-package", "anything.at_all", SEMANTIC) is Effect.RESULT
    assert effect_in("other-package", "anything.at_all", EXECUTION) is Effect.EXECUTION

"""Any spec of our classes comes back from the source that is written of it."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_config.schema.fields import field_types, info_of, spec_fields
from mm_config.schema.root import RootSpec
from mm_config.schema.types import is_union
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import TrainedBy
from mm_config.stored.structuring import known_specs
from tests.mm_config.written_source import assert_gives_back, assert_ruff_changes_nothing

OWN = [cls for cls in known_specs().values() if cls.__module__.startswith("mm_")]


def values_of(expected: Any, attribute: attrs.Attribute[Any], depth: int) -> st.SearchStrategy[Any]:
    info = info_of(attribute)
    if is_union(expected):
        return st.one_of(*(values_of(kind, attribute, depth) for kind in typing.get_args(expected)))
    if typing.get_origin(expected) is tuple:
        kinds = typing.get_args(expected)
        if kinds[-1] is not Ellipsis:
            return st.tuples(*(values_of(kind, attribute, depth) for kind in kinds))
        items = values_of(kinds[0], attribute, depth)
        return st.lists(items, min_size=info.min_length or 0, max_size=6).map(tuple)
    if expected in (None, type(None)):
        return st.none()
    if expected is bool:
        return st.booleans()
    if expected is int:
        least = info.ge if info.ge is not None else -(2**63)
        # Parameters are counted layer by layer.
        most = 50 if attribute.name == "num_layers" else 2**63 if info.le is None else int(info.le)
        return st.integers(int(least), most)
    if expected is float:
        return st.floats(
            min_value=info.ge if info.gt is None else info.gt,
            max_value=info.le if info.lt is None else info.lt,
            exclude_min=info.gt is not None,
            exclude_max=info.lt is not None,
            allow_nan=False,
            allow_infinity=False,
        )
    if expected is str:
        characters = st.characters(exclude_categories=("Cs",))
        return st.text(characters, min_size=info.min_length or 0, max_size=90)
    classes = [cls for cls in OWN if issubclass(cls, expected)]
    if not classes:
        return st.sampled_from(expected)
    if issubclass(expected, RootSpec):
        return specs_of(TrainSpec, depth + 1)
    return st.one_of(*(specs_of(cls, depth) for cls in classes if depth < 1 or cls is not TrainedBy))


def specs_of(cls: type[Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Any spec of a class; most fields with a default have it."""

    @st.composite
    def make(draw: st.DrawFn) -> Any:
        values: dict[str, Any] = {}
        for attribute in spec_fields(cls):
            if attribute.default is attrs.NOTHING or not draw(st.integers(0, 2)):
                values[attribute.name] = draw(values_of(field_types(cls)[attribute.name], attribute, depth))
        return cls(**values)

    return make()


@pytest.mark.parametrize("examples", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_any_spec_comes_back(examples: int, tmp_path: Path) -> None:
    sources: list[str] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.one_of(specs_of(TrainSpec), specs_of(InferSpec)))
    def comes_back(value: RootSpec) -> None:
        sources.append(assert_gives_back(value))

    comes_back()
    assert_ruff_changes_nothing(tmp_path, sources)

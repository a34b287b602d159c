"""Random valid specs for property tests, made from the fields' own types and ranges."""

from __future__ import annotations

import enum
import importlib
import math
import pkgutil
import typing
from functools import cache
from typing import Any

import attrs
from hypothesis import strategies as st

import experiments as experiments_package
from mm_config.schema.evolve import Leaf, leaves
from mm_config.schema.fields import FieldInfo, field_types, info_of, spec_fields
from mm_config.schema.root import RootSpec
from mm_config.schema.types import is_union
from mm_config.stored.structuring import known_specs

MAX_ITEMS = 3
DEEPEST_TRAINING = 1
"""Levels of trainings that weights come from: a training may start from the outcome of another."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Texts that YAML or a command line could take for something else.
tricky_texts = st.sampled_from(
    ["no", "1e-5", "0o7", "~", "=", "<<", "1:2", "\x85", "\ufeff", "--x", "-1", "", " ", "a\nb", "None", "😀"]
)


def specs(cls: type[Any], deepest: int = DEEPEST_TRAINING) -> st.SearchStrategy[Any]:
    """Instances of a spec class; a field that has a default takes it about half of the time."""
    return _instances(cls, deepest)


def values(expected: Any, info: FieldInfo, deepest: int = DEEPEST_TRAINING) -> st.SearchStrategy[Any]:
    """What a field of a type and declaration can hold."""
    if is_union(expected):
        return st.one_of([values(one, info, deepest) for one in typing.get_args(expected)])
    if typing.get_origin(expected) is tuple:
        return _tuples(typing.get_args(expected), info, deepest)
    if expected in (None, type(None)):
        return st.none()
    if expected is bool:
        return st.booleans()
    if expected is int:
        return st.integers(*_integer_range(info)) | st.integers(*_integer_range(info, 64))
    if expected is float:
        return _floats(info)
    if expected is str:
        return (texts | tricky_texts).filter(lambda text: len(text) >= (info.min_length or 0))
    if issubclass(expected, enum.Enum):
        return st.sampled_from(list(expected))
    return st.sampled_from(_classes(expected, deepest, info.by_hash)).flatmap(
        lambda cls: _instances(cls, deepest - info.by_hash)
    )


def leaf_values(leaf: Leaf) -> st.SearchStrategy[Any]:
    """What a leaf of a spec can be set to."""
    return values(leaf.type, leaf.info)


@st.composite
def changes(draw: st.DrawFn, spec: Any, most: int = 6) -> dict[str, Any]:
    """New values for some leaves of a spec, by their paths."""
    found = draw(
        st.lists(st.sampled_from(list(leaves(spec))), max_size=most, unique_by=lambda leaf: leaf.path)
    )
    return {leaf.path: draw(leaf_values(leaf)) for leaf in found}


@cache
def _instances(cls: type[Any], deepest: int) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for attribute in spec_fields(cls):
        one = values(field_types(cls)[attribute.name], info_of(attribute), deepest)
        default = attribute.default
        fields[attribute.name] = one if default is attrs.NOTHING else st.just(default) | one
    return st.builds(cls, **fields)


def _classes(kind: type[Any], deepest: int, by_hash: bool) -> list[type[Any]]:
    """The spec classes of mm_config that a field typed by `kind` can hold, to some depth of trainings."""
    found = [
        cls
        for cls in spec_classes().values()
        if issubclass(cls, kind)
        and (deepest > 0 or not any(info_of(attribute).by_hash for attribute in spec_fields(cls)))
    ]
    return [cls for cls in found if cls.__name__ == "TrainSpec"] if by_hash else found


def _tuples(arguments: tuple[Any, ...], info: FieldInfo, deepest: int) -> st.SearchStrategy[tuple[Any, ...]]:
    inside = attrs.evolve(info, min_length=None)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        one = values(arguments[0], inside, deepest)
        return st.lists(one, min_size=info.min_length or 0, max_size=MAX_ITEMS + (info.min_length or 0)).map(
            tuple
        )
    return st.tuples(*(values(one, inside, deepest) for one in arguments))


def _integer_range(info: FieldInfo, bits: int = 7) -> tuple[int, int]:
    """The allowed integers, those of few digits where `bits` is small."""
    least = max([-(2 ** (min(bits, 63))), *_lower(info)])
    most = min([2**bits - 1, *_upper(info)])
    return math.ceil(least), max(math.floor(most), math.ceil(least))


def _lower(info: FieldInfo) -> list[float]:
    return [
        bound
        for bound in (info.ge, None if info.gt is None else math.floor(info.gt) + 1)
        if bound is not None
    ]


def _upper(info: FieldInfo) -> list[float]:
    return [
        bound for bound in (info.le, None if info.lt is None else math.ceil(info.lt) - 1) if bound is not None
    ]


def _floats(info: FieldInfo) -> st.SearchStrategy[float]:
    least = info.ge if info.gt is None else info.gt
    most = info.le if info.lt is None else info.lt
    return st.floats(
        min_value=least,
        max_value=most,
        exclude_min=info.gt is not None,
        exclude_max=info.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def spec_classes() -> dict[str, type[Any]]:
    """Every spec class of mm_config by its tag, sorted."""
    found = {tag: cls for tag, cls in known_specs().items() if cls.__module__.startswith("mm_config.")}
    return dict(sorted(found.items()))


@cache
def experiments() -> dict[str, RootSpec]:
    """The spec of every experiment by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments_package.__path__))
    return {name: importlib.import_module(f"experiments.{name}").SPEC for name in names}

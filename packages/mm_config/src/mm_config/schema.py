"""The `@spec` decorator: frozen attrs classes whose fields carry a role, a range and a unit.

A spec holds only None, bool, int, float, str, enum, tuple and other specs. Nothing is derived at
construction: what follows from other fields is a property or a function of the finished spec.
"""

from __future__ import annotations

import enum
import math
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar, dataclass_transform

import attrs

from mm_config.errors import Problem, SpecError
from mm_config.typing_checks import type_problem

T = TypeVar("T")


class Role(enum.Enum):
    """What a field can change; decides which of the two hashes it enters."""

    SEMANTIC = "semantic"
    """The mathematics or the data order: in spec_hash and exact_hash."""
    EXECUTION = "execution"
    """How it is computed, equal in exact arithmetic: in exact_hash only."""
    LOCATION = "location"
    """A path or a label: in neither hash."""
    SECRET = "secret"
    """The name of an environment variable: in neither hash."""


SEMANTIC, EXECUTION, LOCATION, SECRET = Role


class _Absent(enum.Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT
"""A field without a neutral value: present at its class's birth, so always emitted."""


@attrs.frozen
class FieldInfo:
    """What `field()` declares beside the type and the default."""

    role: Role = SEMANTIC
    unit: str | None = None
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    neutral: Any = ABSENT
    wire: str | None = None
    by_hash: bool = False


def field(
    default: Any = attrs.NOTHING,
    *,
    role: Role = SEMANTIC,
    unit: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    neutral: Any = ABSENT,
    wire: str | None = None,
    by_hash: bool = False,
) -> Any:
    """Declares a field of a spec.

    Args:
        default: The value when none is given; without one the field is required.
        role: What the field can change, see `Role`.
        unit: Shown in the help and in diffs (`s`, `pixels`, `clips`).
        ge, gt, le, lt: The range, checked on the value or on each element of a tuple.
        min_length: Smallest length of a string or a tuple.
        neutral: For a field added after its class's birth: the value that reproduces the
            behaviour before it existed, frozen for ever. Emitted in canonical bytes only where the
            value differs from it.
        wire: The name in files and canonical bytes, when it is not the Python name.
        by_hash: The value is a root spec that enters the identity by its own spec_hash.
    """
    info = FieldInfo(role, unit, ge, gt, le, lt, min_length, neutral, wire, by_hash)
    return attrs.field(default=default, metadata={"mm": info})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def spec(tag: str, *, schema: int = 1) -> Callable[[type[T]], type[T]]:
    """Makes a class a spec: frozen, keyword-only, checked at construction.

    Args:
        tag: The class's stable name in files and hashes; never its Python path.
        schema: Bumped when the class changes shape other than by a field with `neutral`; the class
            then has a `migrate(payload: dict, schema: int) -> dict` static method.

    Raises:
        TypeError: The tag is taken by another class, or the class has no docstring.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__}: a spec class needs a docstring, it is its help text")

        def check_fields(self: Any) -> None:
            if found := list(field_problems(self)):
                raise SpecError(found)

        cls.__attrs_post_init__ = check_fields  # type: ignore[attr-defined]
        made = attrs.frozen(kw_only=True)(cls)
        made.__spec_tag__ = tag  # type: ignore[attr-defined]
        made.__spec_schema__ = schema  # type: ignore[attr-defined]
        known = _REGISTRY.get(tag)
        if known is not None and known.__qualname__ != made.__qualname__:
            raise TypeError(f"tag {tag!r} is taken by {known.__qualname__}")
        _REGISTRY[tag] = made
        return made

    return decorate


_REGISTRY: dict[str, type[Any]] = {}


def registered_specs() -> dict[str, type[Any]]:
    """All spec classes by wire tag, as registered so far."""
    return dict(_REGISTRY)


def is_spec(value: object) -> bool:
    """Whether a value is an instance of a spec class."""
    return hasattr(type(value), "__spec_tag__")


def info_of(attribute: attrs.Attribute[Any]) -> FieldInfo:
    """The declaration of a field."""
    return attribute.metadata.get("mm", FieldInfo())


def spec_fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a spec class, in order of declaration."""
    return attrs.fields(cls)


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotation of each field."""
    hints = typing.get_type_hints(cls)
    return {attribute.name: hints[attribute.name] for attribute in spec_fields(cls)}


def field_problems(value: Any) -> Iterator[Problem]:
    """Wrong types and values out of range of one spec's own fields (not of nested specs')."""
    types = field_types(type(value))
    for attribute in spec_fields(type(value)):
        yield from value_problems(getattr(value, attribute.name), types[attribute.name], attribute)


def value_problems(value: Any, expected: Any, attribute: attrs.Attribute[Any]) -> Iterator[Problem]:
    """What is wrong with a value as the value of a field: its type, else its range."""
    if message := type_problem(value, expected):
        yield Problem(attribute.name, message)
        return
    info = info_of(attribute)
    if info.min_length is not None and len(value) < info.min_length:
        yield Problem(attribute.name, f"must have at least {info.min_length} items, got {len(value)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if message := _range_problem(number, info):
                yield Problem(attribute.name, message)


def _range_problem(number: float, info: FieldInfo) -> str | None:
    if not math.isfinite(number):
        return f"must be a finite number, got {number}"
    bounds = ((info.ge, ">=", float.__ge__), (info.gt, ">", float.__gt__), (info.le, "<=", float.__le__), (info.lt, "<", float.__lt__))
    for bound, sign, holds in bounds:
        if bound is not None and not holds(float(number), float(bound)):
            unit = f" {info.unit}" if info.unit else ""
            return f"must be {sign} {bound}{unit}, got {number}"
    return None

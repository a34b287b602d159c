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
from typing import Any, TypeVar, cast, dataclass_transform

import attrs

from mm_config.schema.errors import Problem, SpecError
from mm_config.schema.types import annotation_problem, is_tuple, shown, type_problem

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


def narrowed(outer: Role, inner: Role) -> Role:
    """The role of a field inside a field: the one that enters fewer hashes."""
    order = list(Role)
    return max(outer, inner, key=order.index)


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
    *,
    default: Any = attrs.NOTHING,
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
        ge, gt, le, lt: The range, checked on the value or on each number inside a tuple.
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
            then has a static method `migrate(payload: dict, schema: int) -> dict` that turns the
            fields of one schema, by their wire names, into those of the next one.

    Raises:
        TypeError: The tag is taken by another class, or the class has no docstring, sets fields
            after construction, has a schema above 1 and no `migrate`, or two fields of one name.
    """

    def decorate(cls: type[T]) -> type[T]:
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__}: a spec class needs a docstring, it is its help text")
        if "__attrs_post_init__" in vars(cls):
            raise TypeError(f"{cls.__name__}: nothing is derived at construction; use a property")
        if schema > 1 and not isinstance(vars(cls).get("migrate"), staticmethod):
            raise TypeError(f"{cls.__name__}: schema {schema} needs a `migrate` static method")
        known = _REGISTRY.get(tag)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"tag {tag!r} is taken by {_origin(known)}; {_origin(cls)} needs one of its own")

        def check_fields(self: Any) -> None:
            if found := list(field_problems(self)):
                raise SpecError(found)

        cls.__attrs_post_init__ = check_fields  # type: ignore[attr-defined]
        made: Any = attrs.frozen(kw_only=True)(cls)
        names = [wire_name(attribute) for attribute in spec_fields(made)]
        if wrong := [name for name in names if names.count(name) > 1 or name.startswith("~")]:
            raise TypeError(f"{cls.__name__}: {wrong[0]!r} can't be the name of two fields or start with ~")
        made.__spec_tag__ = tag
        made.__spec_schema__ = schema
        _REGISTRY[tag] = made
        return cast(type[T], made)

    return decorate


_REGISTRY: dict[str, type[Any]] = {}


def _origin(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_specs() -> dict[str, type[Any]]:
    """All spec classes by wire tag, as registered so far."""
    return dict(_REGISTRY)


def is_spec(value: object) -> bool:
    """Whether a value is an instance of a spec class."""
    return is_spec_class(type(value))


def class_of(value: object) -> type[Any]:
    """The class of a value."""
    return type(value)


def is_spec_class(cls: object) -> bool:
    """Whether a type is a spec class."""
    return isinstance(cls, type) and "__spec_tag__" in vars(cls)


def tag_of(value: Any) -> str:
    """The wire tag of a spec or a spec class."""
    return value.__spec_tag__


def schema_of(value: Any) -> int:
    """The schema number of a spec or a spec class."""
    return value.__spec_schema__


_UNDECLARED = FieldInfo()


def info_of(attribute: attrs.Attribute[Any]) -> FieldInfo:
    """The declaration of a field."""
    return attribute.metadata.get("mm", _UNDECLARED)


def wire_name(attribute: attrs.Attribute[Any]) -> str:
    """The name of a field in files and canonical bytes."""
    return info_of(attribute).wire or attribute.name


def spec_fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a spec class, in order of declaration."""
    return attrs.fields(cls)


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotation of each field.

    Raises:
        TypeError: A field's type is none that a spec can hold.
    """
    hints = typing.get_type_hints(cls)
    types = {attribute.name: hints[attribute.name] for attribute in spec_fields(cls)}
    for name, annotation in types.items():
        if message := annotation_problem(annotation):
            raise TypeError(f"{_origin(cls)}.{name}: {message}")
    return types


_PLAIN_TYPES = frozenset({bool, int, float, str})


def field_problems(value: Any) -> Iterator[Problem]:
    """Wrong types and values out of range of one spec's own fields (not of nested specs')."""
    types = field_types(class_of(value))
    for attribute in spec_fields(class_of(value)):
        yield from value_problems(getattr(value, attribute.name), types[attribute.name], attribute)


def value_problems(value: Any, expected: Any, attribute: attrs.Attribute[Any]) -> Iterator[Problem]:
    """What is wrong with a value as the value of a field: its type, else its range.

    The paths start at the field: `lr`, or `betas.0` for an element of a tuple.
    """
    # Most fields are plain values; comparing their types is what takes the time of a construction.
    plain = type(value) is expected and expected in _PLAIN_TYPES
    if not plain and (message := type_problem(value, expected)):
        yield Problem(attribute.name, message)
    else:
        yield from range_problems(value, attribute)


def range_problems(value: Any, attribute: attrs.Attribute[Any]) -> Iterator[Problem]:
    """What is wrong with a value of the right type: its length, its numbers, its characters."""
    info = info_of(attribute)
    length = len(value) if isinstance(value, str) or is_tuple(value) else None
    if length is not None and info.min_length is not None and length < info.min_length:
        yield Problem(attribute.name, _length_message(value, info.min_length))
    yield from _content_problems(value, info, attribute.name)


def _content_problems(value: Any, info: FieldInfo, path: str) -> Iterator[Problem]:
    if is_tuple(value):
        for index, item in enumerate(value):
            yield from _content_problems(item, info, f"{path}.{index}")
    elif message := _content_problem(value, info):
        yield Problem(path, message)


def _length_message(value: Any, least: int) -> str:
    if isinstance(value, str):
        return "must not be empty" if least == 1 else f"must have at least {least} characters, got {value!r}"
    return f"must have at least {least} {'item' if least == 1 else 'items'}, got {len(value)}"


def _content_problem(value: Any, info: FieldInfo) -> str | None:
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return _text_problem(value)
    if isinstance(value, (int, float)) and not isinstance(value, (bool, enum.Enum)):
        return _range_problem(value, info)
    return None


def _text_problem(text: str) -> str | None:
    if is_unicode(text):
        return None
    return f"holds a lone surrogate, which is no Unicode text: {shown(text)}"


def is_unicode(text: str) -> bool:
    """Whether a string can be written to a file: half of a surrogate pair can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _range_problem(number: float, info: FieldInfo) -> str | None:
    if isinstance(number, float) and not math.isfinite(number):
        return f"must be a finite number, got {number}"
    if isinstance(number, int) and not -(2**63) <= number < 2**64:
        return f"must fit into 64 bits, got {shown(number)}"
    unit = f" {info.unit}" if info.unit else ""
    if info.ge is not None and number < info.ge:
        return f"must be >= {info.ge}{unit}, got {number}"
    if info.gt is not None and number <= info.gt:
        return f"must be > {info.gt}{unit}, got {number}"
    if info.le is not None and number > info.le:
        return f"must be <= {info.le}{unit}, got {number}"
    if info.lt is not None and number >= info.lt:
        return f"must be < {info.lt}{unit}, got {number}"
    return None

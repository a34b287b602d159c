"""Whether a value is what a spec field's annotation says, exactly: no coercion but int to float."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, TypeGuard

import attrs


def type_problem(value: Any, expected: Any) -> str | None:
    """One line on why `value` is not an `expected`, or None where it is.

    Understands None, bool, int, float (accepts an int that a float can hold exactly), str, enums,
    spec classes and their abstract bases, unions, `tuple[X, ...]` and `tuple[X, Y]`.
    """
    return None if _matches(value, expected) else f"expected {describe(expected)}, got {in_error(value)}"


def expect(name: str, value: object, expected: Any) -> None:
    """Holds an argument of a function against its annotation: a class, a union, `tuple[X, ...]`.

    Raises:
        TypeError: It is of another type; one line says what was expected.
    """
    if not _is(value, expected):
        raise TypeError(f"{name}: expected {describe(expected)}, got {type(value).__name__}")


def expect_spec(name: str, value: object) -> None:
    """Raises TypeError where an argument is no spec."""
    if not is_spec(value):
        raise TypeError(f"{name}: expected a spec, got {type(value).__name__}")


def expect_function(name: str, value: object) -> None:
    """Raises TypeError where an argument is neither None nor can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__}")


def typed(cls: type[Any], fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """The `field_transformer` of an attrs class that people make: wrong types are told as by `expect`."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        expect(field.name, value, _annotations(cls)[field.name])

    checks = attrs.validators
    return [field.evolve(validator=checks.and_(check, *filter(None, [field.validator]))) for field in fields]


@cache
def _annotations(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def annotation_problem(expected: Any) -> str | None:
    """Why a field can't be annotated with `expected`, or None where it can."""
    if expected is None or expected in (type(None), bool, int, float, str):
        return None
    if is_union(expected) or typing.get_origin(expected) is tuple:
        arguments = [argument for argument in typing.get_args(expected) if argument is not Ellipsis]
        return next(filter(None, map(annotation_problem, arguments)), None)
    if is_kind(expected) or (isinstance(expected, type) and issubclass(expected, enum.Enum)):
        return None
    return f"a spec holds None, bool, int, float, str, enum, tuple and specs, not {expected}"


def is_spec(value: object) -> bool:
    """Whether a value is an instance of a spec class."""
    return is_spec_class(type(value))


def is_spec_class(cls: object) -> bool:
    """Whether a type is a spec class."""
    return isinstance(cls, type) and "__spec_tag__" in vars(cls)


def is_kind(expected: object) -> bool:
    """Whether a type can be a spec class, or a base of several that a field accepts."""
    if not isinstance(expected, type) or expected.__module__ == "builtins":
        return False
    return not issubclass(expected, enum.Enum)


def class_of(value: object) -> type[Any]:
    """The class of a value."""
    return type(value)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """`isinstance(value, tuple)`, its items being of any type."""
    return isinstance(value, tuple)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """`isinstance(value, list)`, its items being of any type."""
    return isinstance(value, list)


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """`isinstance(value, dict)`, its keys and values being of any type."""
    return isinstance(value, dict)


def is_union(expected: Any) -> bool:
    """Whether an annotation is `X | Y` or `Optional[X]`."""
    return typing.get_origin(expected) in (typing.Union, UnionType)


def item_types(expected: Any, length: int) -> tuple[Any, ...] | None:
    """The annotations of `length` items of a tuple annotation, or None where it has another length."""
    arguments = typing.get_args(expected)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return (arguments[0],) * length
    return arguments if len(arguments) == length else None


def choices_of(expected: Any) -> Iterator[Any]:
    """The values of an annotation that can be listed: True and False, None, the members of enums."""
    if is_union(expected):
        for argument in typing.get_args(expected):
            yield from choices_of(argument)
    elif expected is bool:
        yield from (True, False)
    elif expected in (None, type(None)):
        yield None
    elif isinstance(expected, type) and issubclass(expected, enum.Enum):
        yield from expected


def describe(expected: Any) -> str:
    """A type in a user's words: `int`, `tuple of 3 (int, int, int)`, `float or None`."""
    if expected is None or expected is type(None):
        return "None"
    arguments = typing.get_args(expected)
    if is_union(expected):
        return " or ".join(describe(argument) for argument in arguments)
    if typing.get_origin(expected) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"tuple of {describe(arguments[0])}"
        return f"tuple of {len(arguments)} ({', '.join(describe(argument) for argument in arguments)})"
    if issubclass(expected, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in expected)
    return expected.__name__


def in_error(value: Any) -> str:
    """A value with its type, as an error message shows it: `str 'x'`, `AdamWSpec`."""
    if value is None:
        return "None"
    if is_spec(value):
        return type(value).__name__
    return f"{type(value).__name__} {literal(value)}"


def literal(value: Any) -> str:
    """A text or a number as Python writes it, cut where it is long."""
    # Python refuses to print integers of more than 4300 digits.
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"of about 2**{value.bit_length()}"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is(value: Any, expected: Any) -> bool:
    if is_union(expected):
        return any(_is(value, argument) for argument in typing.get_args(expected))
    if typing.get_origin(expected) is tuple:
        items = item_types(expected, len(value)) if is_tuple(value) else None
        return items is not None and all(map(_is, value, items))
    if expected is int:
        return type(value) is int
    return value is None if expected is None else isinstance(value, expected)


def _matches(value: Any, expected: Any) -> bool:
    if expected is None or expected is type(None):
        return value is None
    if is_union(expected):
        return any(_matches(value, argument) for argument in typing.get_args(expected))
    if typing.get_origin(expected) is tuple:
        expected_items = item_types(expected, len(value)) if is_tuple(value) else None
        return expected_items is not None and all(map(_matches, value, expected_items))
    if expected is float:
        return type(value) is float or (type(value) is int and fits_float(value))
    if expected in (bool, int, str):
        return type(value) is expected
    if issubclass(expected, enum.Enum):
        return isinstance(value, expected)
    return isinstance(value, expected) and is_spec(value)


def fits_float(number: int) -> bool:
    """Whether a float holds this integer exactly, so that widening rounds nothing."""
    try:
        return int(float(number)) == number
    except OverflowError:
        return False

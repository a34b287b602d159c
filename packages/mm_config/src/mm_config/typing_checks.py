"""Whether a value is what a spec field's annotation says, exactly: no coercion but int to float."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any


def type_problem(value: Any, expected: Any) -> str | None:
    """One line on why `value` is not an `expected`, or None where it is.

    Understands None, bool, int, float (accepts int), str, enums, spec classes and their abstract
    bases, unions, `tuple[X, ...]` and `tuple[X, Y]`.
    """
    return None if _matches(value, expected) else f"expected {describe(expected)}, got {_shown(value)}"


def describe(expected: Any) -> str:
    """A type in a user's words: `int`, `tuple of 3 int`, `float or None`."""
    if expected is None or expected is type(None):
        return "None"
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"tuple of {describe(arguments[0])}"
        return f"tuple of {len(arguments)} ({', '.join(describe(argument) for argument in arguments)})"
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in expected)
    return expected.__name__


def _shown(value: Any) -> str:
    if hasattr(type(value), "__spec_tag__"):
        return type(value).__name__
    return f"{type(value).__name__} {value!r}"


def _matches(value: Any, expected: Any) -> bool:
    if expected is None or expected is type(None):
        return value is None
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if expected is float:
        return type(value) in (float, int)
    if expected in (bool, int, str):
        return type(value) is expected
    return isinstance(value, expected)

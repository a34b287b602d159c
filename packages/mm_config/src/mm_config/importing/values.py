"""Values of other tools' files as values of our specs.

A reader takes their value and gives ours; what can't be read raises ValueError with what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mm_config.importing.nodes import as_in_file
from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import for_person
from mm_config.schema.fields import spec_fields
from mm_config.schema.types import class_of, is_spec, is_tuple

ReadValue: TypeAlias = Callable[[Any], Any]


def whole(value: Any) -> int:
    """A whole number below 2**53."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise ValueError("expected a whole number")
    return value


def real(value: Any) -> float:
    """A finite number, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise ValueError("expected a number")
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def switch(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    return value


def numbers(count: int) -> ReadValue:
    """A list of so many whole numbers."""

    def read(value: Any) -> tuple[int, ...]:
        if not is_tuple(value) or len(value) != count:
            raise ValueError(f"expected a list of {count} whole numbers")
        return tuple(map(whole, value))

    return read


def choice(meanings: Mapping[Any, Any]) -> ReadValue:
    """One of some words, each with what it means."""

    def read(value: Any) -> Any:
        for word, meaning in meanings.items():
            if type(word) is type(value) and word == value:
                return meaning
        raise ValueError(f"can't be said here: only {', '.join(map(as_in_file, meanings))}")

    return read


def optional(read: ReadValue) -> ReadValue:
    """As another, where null is None."""
    return lambda value: None if value is None else read(value)


def at_least(least: float, otherwise: str, read: ReadValue = real) -> ReadValue:
    """A number not below `least`.

    Args:
        least: The smallest that our spec takes.
        otherwise: What a smaller one would mean.
        read: How the number is read.
    """

    def read_enough(value: object) -> float:
        number = read(value)
        if number < least:
            raise ValueError(f"{otherwise}, which can't be said here; at least {as_in_file(least)}")
        return number

    return read_enough


COUNT = at_least(1, "is no count", whole)


def in_report(value: Any) -> str:
    """A value of our spec in a report's line: a spec with the fields that are not at their defaults."""
    if not is_spec(value):
        return for_person(value)
    said = [
        f"{field.name} {for_person(mine)}"
        for field in spec_fields(class_of(value))
        if (mine := getattr(value, field.name)) != field.default
    ]
    return f"{tag_of(value)} ({', '.join(said)})"

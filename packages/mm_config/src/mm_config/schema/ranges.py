"""Whether values are what their fields allow: type, length, range, characters."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.schema.errors import Problem
from mm_config.schema.fields import FieldInfo, field_types, info_of, spec_fields
from mm_config.schema.types import class_of, in_error, is_tuple, type_problem

MOST_CHARACTERS = 2**20
"""Of one text of a spec; the longest prompts have some thousands."""
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
    if isinstance(value, enum.Enum):
        return None
    if isinstance(value, str) and not is_unicode(value):
        return f"holds a lone surrogate, which is no Unicode text: {in_error(value)}"
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return f"must have at most {MOST_CHARACTERS} characters, got {len(value)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _range_problem(value, info)
    return None


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
        return f"must fit into 64 bits, got {in_error(number)}"
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

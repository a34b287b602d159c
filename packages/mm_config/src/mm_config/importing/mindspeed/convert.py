"""Values of MindSpeed-MM's files as values of our specs, and back."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from mm_config.importing.nodes import Leaf
from mm_config.schema.fields import spec_fields
from mm_config.schema.types import class_of, is_spec, is_tuple

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_REAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@attrs.frozen
class Convert:
    """One way to read a value; what can't be read raises ValueError with what is allowed."""

    read: Callable[[Any], Any]
    """Theirs to ours."""
    write: Callable[[Any], Leaf]
    """Ours to theirs."""


_CONSTANTS = {None: "null", True: "true", False: "false"}


def number_of(text: str) -> Leaf:
    """The number that a text of a script writes, or the text itself."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) and math.isfinite(float(text)) else text


def said(value: object) -> str:
    """A value as its file would show it, cut where it is long."""
    text = _CONSTANTS[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise ValueError("expected a whole number")
    return value


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise ValueError("expected a number")
    if not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    return value


def same(value: Any) -> Any:
    """The value itself."""
    return value


WHOLE = Convert(_whole, same)
REAL = Convert(_real, same)
SWITCH = Convert(_switch, same)
TEXT = Convert(_text, same)


def numbers(count: int) -> Convert:
    """A list of so many whole numbers."""

    def read(value: Any) -> tuple[int, ...]:
        if not is_tuple(value) or len(value) != count:
            raise ValueError(f"expected a list of {count} whole numbers")
        return tuple(map(_whole, value))

    return Convert(read, same)


def choice(meanings: Mapping[Any, Any]) -> Convert:
    """One of some words; of words with the same meaning the first is the one that is written."""

    def read(value: Any) -> Any:
        for word, meaning in meanings.items():
            if type(word) is type(value) and word == value:
                return meaning
        raise ValueError(f"can't be said here: only {', '.join(map(said, meanings))}")

    def write(value: Any) -> Leaf:
        return next(word for word, meaning in meanings.items() if meaning == value)

    return Convert(read, write)


def optional(convert: Convert, missing: Any = None) -> Convert:
    """As another, where null means `missing`."""
    return Convert(
        lambda value: missing if value is None else convert.read(value),
        lambda value: None if value == missing else convert.write(value),
    )


def chain(inner: Convert, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> Convert:
    """A conversion followed by another step."""
    return Convert(lambda value: read(inner.read(value)), lambda value: inner.write(write(value)))


def shown(value: Any) -> str:
    """Our value in a report's line."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if is_tuple(value):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    if is_spec(value):
        return f"{class_of(value).__name__}({', '.join(_given(value))})"
    return repr(value)


def _given(value: Any) -> Iterator[str]:
    """The fields of a spec that are not at their defaults, as a call names them."""
    for attribute in spec_fields(class_of(value)):
        if (mine := getattr(value, attribute.name)) != attribute.default:
            yield f"{attribute.name}={shown(mine)}"

"""How values are written for people: in the notation that the command line reads back."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterable
from typing import Any

import attrs

from mm_config.schema.decorator import tag_of
from mm_config.schema.evolve import is_inside
from mm_config.schema.fields import spec_fields
from mm_config.schema.types import class_of, is_spec, is_tuple
from mm_config.stored.text_width import cut, width_of

MARK = "(not carried out yet)"
"""Stands behind what a spec's runner would only refuse."""
MANY = 4
"""More items than this are abbreviated where space is short."""


def for_shell(value: Any) -> str:
    """A value on one line, as it would be given after its flag; a spec by its wire tag."""
    if is_tuple(value):
        return " ".join(map(for_shell, value)) or "(none)"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if is_spec(value):
        return f"<{tag_of(value)}>"
    return _word(value) if isinstance(value, str) else str(value)


def brief(value: Any) -> str:
    """As `for_shell`, but a long tuple by its first items and its length."""
    if is_tuple(value) and len(value) > MANY:
        return f"{for_shell(value[:2])} ... ({len(value)} in all)"
    return for_shell(value)


def fitted(value: Any, width: int) -> str:
    """As `for_shell`, but in at most about `width` columns: long texts and tuples by their starts."""
    whole = for_shell(value)
    if width_of(whole) <= width:
        return whole
    if is_tuple(value):
        if len(value) == 1:
            return fitted(value[0], width)
        note = f"... ({len(value)} in all)"
        for count in range(len(value) - 1, 0, -1):
            start = f"{for_shell(value[:count])} {note}"
            if width_of(start) <= width:
                return start
        return f"{_start(for_shell(value[0]), width - len(note) - 1)} {note}"
    if isinstance(value, str):
        note = f"({len(value)} characters)"
        return f"{_start(whole, width - len(note) - 1)} {note}"
    return whole


def outline(value: Any) -> str:
    """A spec by its tag and those of its fields that are not at their defaults."""
    said = [
        f"{attribute.name} {brief(getattr(value, attribute.name))}"
        for attribute in spec_fields(class_of(value))
        if not is_default(attribute, getattr(value, attribute.name))
    ]
    return f"{tag_of(value)} ({', '.join(said)})" if said else tag_of(value)


def is_default(attribute: attrs.Attribute[Any], value: Any) -> bool:
    """Whether a field has its class's default; one without a default never has."""
    default: Any = attribute.default
    return type(value) is type(default) and value == default


def plain(value: Any) -> Any:
    """A value as JSON holds it; a spec as its payload."""
    if is_tuple(value):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if is_spec(value):
        from mm_config.stored.files import to_payload

        return to_payload(value)
    return value


def mark(path: str, refused: Iterable[str]) -> str:
    """What to say beside a field that the runner can't do, or that lies in a spec that it can't."""
    return MARK if is_inside(path, refused) else ""


def marked(text: str, refused: Iterable[Any]) -> str:
    """A text that lists choices, `{none,full}`, with the mark behind those that the runner refuses."""
    for word in map(for_shell, refused):
        text = re.sub(rf"([{{,]{re.escape(word)})(?=[,}}])", rf"\1 {MARK}", text)
    return text


def _start(text: str, width: int) -> str:
    """The start of a text that is cut, in its quotes, in at most `width` columns but some characters."""
    if width_of(text) <= width:
        return text
    end = "'" if text.endswith("'") else ""
    return f"{cut(text, max(width - 3 - len(end), 4))}...{end}"


def _word(text: str) -> str:
    """A text as a shell reads it; line breaks and the like as escapes, which bash and zsh know."""
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"\\": "\\\\", "'": "\\'"}
    inside = (escapes.get(c, c if c.isprintable() else repr(c)[1:-1]) for c in text)
    return f"$'{''.join(inside)}'"

"""What a tool's table says of one key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from mm_config.importing.nodes import Leaf
from mm_config.importing.values import ReadValue
from mm_config.importing.verdict import Verdict
from mm_config.schema.fields import ABSENT


@attrs.frozen
class Row:
    """One key of one kind of file, or one field of one class."""

    kind: str
    """The kind of file, or the class."""
    path: str
    """The key's path with `[]` for each list element, or the field."""
    verdict: Verdict
    """What becomes of the key."""
    target: str = ""
    """Canonical paths without `spec.`, or flags beside the spec, joined by commas."""
    reason: str = ""
    """Why, where it is not carried over."""
    read: ReadValue | None = None
    """How the value is read; None where several keys are read together."""
    default: Any = ABSENT
    """What the tool takes where the key is missing, if that is a value of our spec."""
    only: tuple[Leaf, ...] = ()
    """Of a derived key: the values with this verdict; others are refused. Empty: any value."""
    when: str = ""
    """Names of the conditions under which the tool reads the key at all."""
    infer: str = ""
    """Of a flag: the target in an inference spec; empty where inference leaves the flag unread."""
    inside: str = ""
    """The kind of the rows of the keys inside an object; empty where paths hold all keys on the way."""
    many: bool = False
    """Whether it is a list of such objects."""


def mapped(path: str, target: str, read: ReadValue | None, **more: Any) -> Row:
    """A key with a place in our spec; `kind` is filled in by the table."""
    return Row("", path, Verdict.MAPPED, target, read=read, **more)


def _told(verdict: Verdict) -> Callable[..., Row]:
    """Rows without a place in our spec: a path, the reason, and the only values that have this verdict."""

    def row(path: str, reason: str, *only: Leaf, **more: Any) -> Row:
        return Row("", path, verdict, reason=reason, only=only, **more)

    return row


derived, dead, outside, refused = map(
    _told, (Verdict.DERIVED, Verdict.DEAD, Verdict.OUTSIDE, Verdict.REFUSED)
)


def misspelt(path: str, meant: str, effect: str, **more: Any) -> Row:
    """A key that somebody meant otherwise."""
    return Row("", path, Verdict.MISSPELT, reason=f"meant {meant}: {effect}", **more)


NO_KEYS: tuple[Leaf, ...] = ({}, (), None)
"""What a group without keys may be."""


def group(*paths: str) -> tuple[Row, ...]:
    """Keys that hold other keys; a number or text in their place is refused."""
    reason = "a group: its keys have rows"
    return tuple(Row("", path, Verdict.DERIVED, reason=reason, only=NO_KEYS) for path in paths)


def of_kind(kind: str, *rows: Row) -> tuple[Row, ...]:
    """Rows of one kind."""
    return tuple(attrs.evolve(row, kind=kind) for row in rows)

"""What a row of the table says of one field of TeleFuser's configuration classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from mm_config.importing.nodes import Leaf
from mm_config.importing.verdict import Verdict


@attrs.frozen
class Row:
    """One field of one class."""

    owner: str
    """The configuration class, or `__call__`."""
    name: str
    """The field."""
    holds: Any
    """`bool`, `int`, `float`, `str`; an enum's names as a tuple; a class's name; None for anything."""
    default: Any
    """TeleFuser's own, which a dump without the key has."""
    verdict: Verdict
    """What becomes of it."""
    target: str = ""
    """Canonical paths without `spec.`, joined by commas."""
    reason: str = ""
    """Why, where it is not carried over."""
    optional: bool = False
    """Whether it may be null."""
    many: bool = False
    """Whether it is a list."""


def mapped(name: str, holds: Any, default: Leaf, target: str, reason: str = "", **more: Any) -> Row:
    """A field with a place in our spec; `owner` is filled in by the table."""
    return Row("", name, holds, default, Verdict.MAPPED, target, reason, **more)


def _told(verdict: Verdict) -> Callable[..., Row]:
    """Rows of a name, what it holds, its default, the reason and perhaps a target."""

    def row(name: str, holds: Any, default: Leaf, reason: str, target: str = "", **more: Any) -> Row:
        return Row("", name, holds, default, verdict, target, reason, **more)

    return row


derived, dead, outside, refused = map(
    _told, (Verdict.DERIVED, Verdict.DEAD, Verdict.OUTSIDE, Verdict.REFUSED)
)
"""What is refused is so at any value but its default."""


def group(name: str, cls: str, target: str = "", **more: Any) -> Row:
    """A field that holds fields of another class."""
    return Row("", name, cls, None, Verdict.DERIVED, target, f"its fields have rows under {cls}", **more)


def of(owner: str, *rows: Row) -> tuple[Row, ...]:
    """Rows of one class."""
    return tuple(attrs.evolve(row, owner=owner) for row in rows)

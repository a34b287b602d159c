"""What a row of the table says of one field of TeleFuser's configuration classes."""

from __future__ import annotations

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
    holds: Any
    """`bool`, `int`, `float`, `str`; an enum's names as a tuple; a class's name; None for anything."""
    default: Any
    """TeleFuser's own, which a dump without the key has."""
    verdict: Verdict
    target: str = ""
    """Canonical paths without `spec.`, joined by commas."""
    reason: str = ""
    optional: bool = False
    """Whether it may be null."""
    many: bool = False
    """Whether it is a list."""


def mapped(name: str, holds: Any, default: Leaf, target: str, reason: str = "", **more: Any) -> Row:
    """A field with a place in our spec; `owner` is filled in by the table."""
    return Row("", name, holds, default, Verdict.MAPPED, target, reason, **more)


def derived(name: str, holds: Any, default: Leaf, reason: str, target: str = "", **more: Any) -> Row:
    """A field that follows from others."""
    return Row("", name, holds, default, Verdict.DERIVED, target, reason, **more)


def dead(name: str, holds: Any, default: Leaf, reason: str, **more: Any) -> Row:
    """A field that nothing reads."""
    return Row("", name, holds, default, Verdict.DEAD, "", reason, **more)


def outside(name: str, holds: Any, default: Leaf, reason: str, **more: Any) -> Row:
    """A field about the machine or one request."""
    return Row("", name, holds, default, Verdict.OUTSIDE, "", reason, **more)


def refused(name: str, holds: Any, default: Leaf, reason: str, **more: Any) -> Row:
    """A field that our spec can't say; its default is accepted."""
    return Row("", name, holds, default, Verdict.REFUSED, "", reason, **more)


def group(name: str, cls: str, target: str = "", **more: Any) -> Row:
    """A field that holds fields of another class."""
    return Row("", name, cls, None, Verdict.DERIVED, target, f"its fields have rows under {cls}", **more)


def of(owner: str, *rows: Row) -> tuple[Row, ...]:
    """Rows of one class."""
    return tuple(attrs.evolve(row, owner=owner) for row in rows)

"""What a row of the table says of one key."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import attrs

from mm_config.importing.mindspeed.values import ReadValue
from mm_config.importing.nodes import Leaf
from mm_config.importing.verdict import Verdict
from mm_config.schema.fields import ABSENT
from mm_config.schema.suggestions import nearest

FLAG = "shell flag"
_BASES = {"model": "model.json", "data": "data.json", "tools": "tools.json"}


@attrs.frozen
class Row:
    """One key of one kind of file."""

    kind: str
    """The kind of file."""
    path: str
    """The path with `[]` for each list element."""
    verdict: Verdict
    """What becomes of the key."""
    target: str = ""
    """Canonical path without `spec.`, or the flag beside the spec, of a mapped key."""
    reason: str = ""
    """Why, where it is not carried over."""
    read: ReadValue | None = None
    """How a mapped value is read; None where several keys are read together."""
    only: tuple[Leaf, ...] = ()
    """Of a derived key: the values with this verdict; others are refused."""
    when: str = ""
    """Names of the conditions under which the key is read at all, see `conditions`."""
    default: Any = ABSENT
    """What MindSpeed-MM takes where the key is missing, if that is a value of our spec."""
    infer: str = ""
    """Of a flag: the target in an inference spec; empty where inference leaves the flag unread."""


@attrs.frozen(slots=False, eq=False)
class Table:
    """What becomes of each key, flag and variable."""

    rows: tuple[Row, ...]
    """One for each kind of file and path."""

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], Row]:
        return {(row.kind, row.path): row for row in self.rows}

    def row_of(self, kind: str, path: str) -> Row | None:
        """The row of a key, its path with `[]` for each list element; None where there is none.

        In a native YAML file the sections `model`, `data` and `tools` hold the keys of the JSON files.
        """
        found = self._by_key.get((kind, path))
        if found is None and kind == "native.yaml":
            section, _, below = path.partition(".")
            return self._by_key.get((_BASES.get(section, ""), below))
        return found

    def top_keys(self, kind: str) -> frozenset[str]:
        """The keys at the root of a kind of file."""
        return frozenset(row.path.partition(".")[0] for row in self.rows if row.kind == kind)

    def nearest_key(self, kind: str, path: str) -> str | None:
        """The known key that a misspelt one was probably meant to be."""
        known = [row.path for row in self.rows if row.kind == kind and row.verdict is not Verdict.MISSPELT]
        parent = path.rpartition(".")[0]
        siblings = [key for key in known if key.rpartition(".")[0] == parent]
        return next(iter(nearest(path, siblings) or nearest(path, known)), None)


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
    """Rows of one kind of file."""
    return tuple(attrs.evolve(row, kind=kind) for row in rows)

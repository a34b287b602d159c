"""Which runs are asked for, and a page of them, sorted and counted by the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.runs import tables
from mm_config.runs.conditions import Aliases, Condition, moment
from mm_config.runs.record import RunRecord, RunStatus, is_storable

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table

    from mm_config.runs.field_queries import FieldQueries

ORDERS = ("started_at", "finished_at", "name", "kind", "status", "host", "spec_hash")
"""What runs are sorted by, beside fields of their specs."""


@attrs.frozen(kw_only=True)
class Asked:
    """What runs have to be, see `Index.list`, and how they are shown."""

    matching: str | None = None
    """An id, a folder's name, a label or the beginning of a hash."""
    name: str | None = None
    """The exact label."""
    status: RunStatus | None = None
    """How far the run has come."""
    since: str | None = None
    """First date or time."""
    until: str | None = None
    """First date or time that is too late."""
    where: tuple[Condition, ...] = ()
    """Conditions on fields of the spec."""
    aliases: Aliases = MappingProxyType({})
    """Short names that the conditions may use."""
    fields: tuple[str, ...] = ()
    """Paths of fields that are shown of each run, without the leading `spec.`."""
    order: str = "started_at"
    """One of `ORDERS`, or the path of a field, by which they are sorted."""
    descending: bool = True
    """Greatest first; runs without a value come last in either direction."""
    first: int = 0
    """How many runs stand on the pages before."""
    most: int = 50
    """Runs of a page."""

    def met(self, runs: Table, queries: FieldQueries) -> list[ColumnElement[bool]] | None:
        """All conditions but that on the status, as SQL; None where no run can meet them.

        Raises:
            UserError: A date is none.
        """
        columns = runs.c
        if not all(is_storable(text) for text in (self.matching, self.name) if text is not None):
            return None
        found: list[ColumnElement[bool]] = []
        if self.matching is not None:
            found.append(tables.named_or_hashed(runs, self.matching))
        if self.name is not None:
            found.append(columns.name == self.name)
        if self.since is not None:
            found.append(columns.started_at >= moment(self.since))
        if self.until is not None:
            found.append(columns.started_at < moment(self.until))
        return found + [queries.met(condition, self.aliases) for condition in self.where]


@attrs.frozen
class Listed:
    """A run on a page."""

    record: RunRecord
    """The run as it is."""
    fields: Mapping[str, Any]
    """Values of the fields that were asked for; a run without one leaves it out."""


def field_value(text: str) -> Any:
    """The value of a field from its text in the index, where a list is JSON."""
    from mm_config.runs.field_texts import value_of

    return value_of(json.loads(text) if text[0] == "[" else text)

"""Which runs are asked for, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from mm_config.runs.conditions import Aliases, Condition
from mm_config.runs.record import RunRecord, RunStatus

ORDERS = ("started_at", "finished_at", "name", "kind", "status", "host", "spec_hash")
"""What runs are sorted by, beside fields of their specs."""


@attrs.frozen(kw_only=True)
class Asked:
    """What runs have to be, see `Index.list`, and how they are shown."""

    matching: str | None = None
    """A run id (`tiny_high/20261122-7f3a91c2d0e4-1`), a run folder's own name, a label, or the beginning of a
    spec_hash or an exact_hash, of the run's start or of today, or of what a run was made of."""
    name: str | None = None
    """The exact label."""
    status: RunStatus | None = None
    """How far the run has come."""
    since: str | None = None
    """First date or time in ISO 8601 (`2026-11-22`), UTC where it names no zone."""
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


@attrs.frozen
class Listed:
    """A run on a page."""

    record: RunRecord
    """The run as it is."""
    fields: Mapping[str, Any]
    """Values of the fields that were asked for; a run without one leaves it out."""

"""The index's table: a row per run, with the fields of its spec as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.runs.record import MAX_LENGTHS, RunRecord, from_row, to_row

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, Table

RUNS = "runs_v5"
"""Carries the layout's version: a new layout is a new table, filled from the folders."""

RECORD: tuple[str, ...] = tuple(attribute.name for attribute in attrs.fields(RunRecord))
"""The columns that hold a record."""
HASHES = ("spec_hash", "exact_hash", "spec_hash_now", "exact_hash_now", "made_of")
"""The columns by whose beginning a run is found."""
_OPTIONAL = ("finished_at", "requests_hash", *HASHES[2:])
_INDEXED = ("name", "started_at", *HASHES)

_CHUNK = 200
"""Rows that are written at once."""


def runs_table() -> Table:
    """The table of the present layout: `key`, the columns of a record, `folder` (the last part of its path),
    and as JSON `fields`, the texts of the spec's fields by path, and `named`, the content that names met."""
    from sqlalchemy import JSON, BigInteger, Column, MetaData, Table, Text
    from sqlalchemy.dialects.postgresql import JSONB

    def text(name: str) -> Column[Any]:
        return _text(name, MAX_LENGTHS[name], nullable=name in _OPTIONAL, index=name in _INDEXED)

    values = JSON().with_variant(JSONB(), "postgresql")
    return Table(
        RUNS,
        MetaData(),
        Column("key", BigInteger, primary_key=True, autoincrement=False),
        *map(text, MAX_LENGTHS),
        _text("folder", MAX_LENGTHS["path"], nullable=False, index=True),
        Column("reason", Text),
        Column("fields", values, nullable=False),
        Column("named", values, nullable=False),
    )


def key_of(record: RunRecord) -> int:
    """The number of a run in the tables: 63 bits that follow from its uid and its path."""
    digest = hashlib.sha256(f"{record.uid} {record.path}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def encoded(record: RunRecord) -> dict[str, Any]:
    """A run's row without what is JSON. Its reason may hold any character, so it is stored as ASCII JSON."""
    reason = None if record.reason is None else json.dumps(record.reason)
    folder = record.path.rpartition("/")[2]
    return {**to_row(record), "key": key_of(record), "folder": folder, "reason": reason}


def decoded(row: Mapping[str, Any]) -> RunRecord:
    """The inverse of `encoded`; zeros in a text are damage."""
    values: dict[str, Any] = {name: row[name] for name in RECORD}
    if "\0" in "".join(filter(None, values.values())):
        raise ValueError("a text holds zeros")
    values["reason"] = None if values["reason"] is None else json.loads(values["reason"])
    return from_row(values)


def named_or_hashed(runs: Table, text: str) -> ColumnElement[bool]:
    """Whether a run has a text as its id, its folder's name or its label, or as the beginning of a hash."""
    columns = runs.c
    found = (columns.path == text) | (columns.folder == text) | (columns.name == text)
    prefix = text.lower()
    if re.fullmatch("[0-9a-f]{1,64}", prefix):
        # LIKE ignores case in SQLite only, and uses an index in neither database. "g" follows "f".
        for name in HASHES:
            found |= columns[name].between(prefix, f"{prefix}g")
    return found


def replace(connection: Connection, runs: Table, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows in the place of those with the same keys, and counts them."""
    rest, count = iter(rows), 0
    while chunk := list(islice(rest, _CHUNK)):
        connection.execute(runs.delete().where(runs.c.key.in_([row["key"] for row in chunk])))
        connection.execute(runs.insert(), chunk)
        count += len(chunk)
    return count


def _text(name: str, length: int, **options: Any) -> Column[Any]:
    from sqlalchemy import Column, String

    # SQLite orders text by its bytes; PostgreSQL does so only in this collation.
    kind = String(length).with_variant(String(length, collation="C"), "postgresql")
    return Column(name, kind, **options)

"""The index's two tables: a row per run, and a row per field of each run's spec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.runs.record import MAX_LENGTHS, RunRecord, RunStatus, to_row
from mm_config.runs.stored import MAX_PATH, Stored

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

RUNS = "runs_v2"
"""Carries the layout's version: a new layout is a new table, filled from the folders."""
FIELDS = "run_fields_v2"

RECORD = tuple(attribute.name for attribute in attrs.fields(RunRecord))
"""The columns that hold a record."""
_OPTIONAL = ("finished_at", "spec_hash_now", "exact_hash_now")
_INDEXED = ("name", "spec_hash", "exact_hash", "spec_hash_now", "exact_hash_now", "started_at")


@attrs.frozen
class Tables:
    """Made by `tables`."""

    runs: Table
    """`key`, the columns of a record, and `folder`, the last part of its path."""
    fields: Table
    """`run` (a key), `path` and `value` (JSON)."""


def tables() -> Tables:
    """The tables of the present layout."""
    from sqlalchemy import BigInteger, Column, MetaData, Table, Text

    def text(name: str) -> Column[Any]:
        return _text(name, MAX_LENGTHS[name], nullable=name in _OPTIONAL, index=name in _INDEXED)

    metadata = MetaData()
    runs = Table(
        RUNS,
        metadata,
        Column("key", BigInteger, primary_key=True, autoincrement=False),
        *map(text, MAX_LENGTHS),
        _text("folder", MAX_LENGTHS["path"], nullable=False, index=True),
        Column("reason", Text),
    )
    fields = Table(
        FIELDS,
        metadata,
        Column("run", BigInteger, primary_key=True, autoincrement=False),
        _text("path", MAX_PATH, primary_key=True, index=True),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    return Tables(runs, fields)


def key_of(record: RunRecord) -> int:
    """The number of a run in the tables: 63 bits that follow from its uid and its path."""
    digest = hashlib.sha256(f"{record.uid} {record.path}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def encoded(record: RunRecord) -> dict[str, Any]:
    """The row of a run. Its reason may hold any character, so it is stored as ASCII JSON."""
    reason = None if record.reason is None else json.dumps(record.reason)
    folder = record.path.rpartition("/")[2]
    return {**to_row(record), "key": key_of(record), "folder": folder, "reason": reason}


def decoded(row: Mapping[str, Any]) -> RunRecord:
    """The inverse of `encoded`."""
    values: dict[str, Any] = {name: row[name] for name in RECORD}
    values["status"] = RunStatus(values["status"])
    values["reason"] = None if values["reason"] is None else json.loads(values["reason"])
    return RunRecord(**values)


def field_rows(record: RunRecord, content: Stored) -> list[dict[str, Any]]:
    """The rows of a run's fields."""
    key = key_of(record)
    return [{"run": key, "path": path, "value": value} for path, value in content.fields.items()]


def _text(name: str, length: int, **options: Any) -> Column[Any]:
    from sqlalchemy import Column, String

    # SQLite orders text by its bytes; PostgreSQL does so only in this collation.
    kind = String(length).with_variant(String(length, collation="C"), "postgresql")
    return Column(name, kind, **options)

"""The table of the queue: a row for each job, in the database of the run index or a file beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mm_config.schema import Problem, UserError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_TABLE = "queue_v1"
"""Carries the layout's version: another one is never read as this."""


def queue_table() -> Table:
    """The table of this version; times are seconds since 1970 by the database's clock."""
    from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Table, Text

    def text(name: str, **options: Any) -> Column[Any]:
        return Column(name, Text, **options)

    # SQLite numbers rows by itself in a column of this type alone.
    number = BigInteger().with_variant(Integer(), "sqlite")
    return Table(
        _TABLE,
        MetaData(),
        Column("number", number, primary_key=True, autoincrement=True),
        text("id", nullable=False, unique=True),
        text("key", unique=True),
        text("model", nullable=False, index=True),
        text("request", nullable=False),
        Column("priority", Integer, nullable=False),
        text("status", nullable=False, index=True),
        Column("tries", Integer, nullable=False),
        text("worker"),
        text("token"),
        Column("lease_until", Float),
        Column("cancelled", Boolean, nullable=False),
        Column("progress", Float, nullable=False),
        text("reason"),
        text("result"),
        text("parent"),
        Column("created_at", Float, nullable=False),
        Column("started_at", Float),
        Column("finished_at", Float),
    )


def make_table(connection: Connection, table: Table) -> None:
    """Makes the table where it is missing.

    Raises:
        UserError: The database holds the queue of another version.
    """
    from sqlalchemy import inspect

    names = inspect(connection).get_table_names()
    if others := [name for name in names if re.fullmatch(r"queue_v\d+", name) and name != _TABLE]:
        message = f"is of another version ({others[0]}, this one reads {_TABLE}); finish it with that version"
        raise UserError(Problem("queue", message))
    if _TABLE not in names:
        table.create(connection)

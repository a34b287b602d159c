"""The SQL index of runs: SQLite beside the run folders, or any database by MM_RUNS_URL.

The folders are the truth. An index that is missing, or of an older layout, is rebuilt from their
`status.json` files when it is opened, so it can be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.errors import Problem, UserError
from mm_config.runs.lock import is_held
from mm_config.runs.record import (
    RESULT_FILE,
    STATUS_FILE,
    RunRecord,
    RunStatus,
    from_row,
    read_record,
    to_row,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Table

FILE_NAME = "index.sqlite"
URL_VARIABLE = "MM_RUNS_URL"
BUSY_SECONDS = 60
TABLE = "runs_v1"
"""Carries the layout's version: a new layout is a new table, filled from the folders."""


@attrs.frozen
class Index:
    """The runs under one folder; made by `open_index`."""

    runs_dir: Path
    engine: Engine
    table: Table

    def add(self, record: RunRecord) -> None:
        """Registers a run. One that a rebuild has found in the meantime is replaced."""
        with self._writing() as connection:
            connection.execute(self.table.delete().where(self._is(record)))
            connection.execute(self.table.insert(), to_row(record))

    def set_status(self, record: RunRecord) -> None:
        """Stores the status, the time and the reason of a registered run."""
        changed = {name: to_row(record)[name] for name in ("status", "finished_at", "reason")}
        with self._writing() as connection:
            connection.execute(self.table.update().where(self._is(record)).values(changed))

    def list(
        self,
        *,
        name: str | None = None,
        status: RunStatus | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> tuple[RunRecord, ...]:
        """Runs that meet every condition, newest first.

        Args:
            name: The exact label.
            status: How far the run has come.
            since: First UTC date or time in ISO 8601 (`2026-11-22`).
            until: First UTC date or time that is too late.
        """
        columns = self.table.c
        conditions = [] if name is None else [columns.name == name]
        conditions += [] if since is None else [columns.started_at >= since]
        conditions += [] if until is None else [columns.started_at < until]
        found = self._read(*conditions)
        return tuple(record for record in found if status in (None, record.status))

    def find(self, text: str) -> tuple[RunRecord, ...]:
        """Runs that a person may mean, newest first.

        Args:
            text: A run id (`tiny_high/20261122-7f3a91c2d0e4-1`), a run folder's own name, a label, or
                the beginning of a spec_hash or an exact_hash.
        """
        columns = self.table.c
        return self._read(
            (columns.path == text)
            | columns.path.endswith(f"/{text}", autoescape=True)
            | (columns.name == text)
            | columns.spec_hash.startswith(text.lower(), autoescape=True)
            | columns.exact_hash.startswith(text.lower(), autoescape=True)
        )

    def find_finished(self, spec_hash: str) -> tuple[RunRecord, ...]:
        """Finished runs of a spec whose result still lies in the folder, newest first."""
        columns = self.table.c
        found = self._read(columns.spec_hash == spec_hash, columns.status == RunStatus.FINISHED.value)
        return tuple(record for record in found if (self.folder(record) / RESULT_FILE).is_file())

    def folder(self, record: RunRecord) -> Path:
        """The folder of a run."""
        return self.runs_dir / record.path

    def reindex(self) -> int:
        """Makes the index hold what the run folders hold, and counts them.

        In a database that several runs folders share, only the runs found here are replaced.
        """
        with self._writing() as connection:
            self.table.create(connection, checkfirst=True)
            records = [read_record(folder, self.runs_dir) for folder in run_folders(self.runs_dir)]
            if _is_shared():
                for record in records:
                    connection.execute(self.table.delete().where(self._is(record)))
            else:
                connection.execute(self.table.delete())
            if records:
                connection.execute(self.table.insert(), [to_row(record) for record in records])
        return len(records)

    def _is(self, record: RunRecord) -> ColumnElement[bool]:
        return (self.table.c.uid == record.uid) & (self.table.c.path == record.path)

    def _read(self, *conditions: ColumnElement[bool]) -> tuple[RunRecord, ...]:
        columns = self.table.c
        query = (
            self.table.select().where(*conditions).order_by(columns.started_at.desc(), columns.path.desc())
        )
        with _database_errors(self.engine), self.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return tuple(self._checked(from_row(row)) for row in rows)

    def _checked(self, record: RunRecord) -> RunRecord:
        """A killed process can't say so: a run that no process holds any more was interrupted."""
        folder = self.folder(record)
        if record.status is RunStatus.RUNNING and folder.is_dir() and not is_held(folder):
            return attrs.evolve(record, status=RunStatus.INTERRUPTED)
        return record

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with _database_errors(self.engine), self.engine.execution_options(writes=True).begin() as connection:
            yield connection


def open_index(runs_dir: Path) -> Index:
    """Opens the index of a runs folder, rebuilding it where it is missing.

    A runs folder that does not exist has an empty index, and is not made.

    Raises:
        UserError: The database can't be opened.
    """
    from sqlalchemy import inspect

    engine = _engine(runs_dir)
    index = Index(runs_dir, engine, _table())
    with _database_errors(engine):
        missing = not inspect(engine).has_table(TABLE)
    if missing:
        index.reindex()
    return index


def run_folders(runs_dir: Path) -> Iterator[Path]:
    """Every run folder, `<name>/<run>`; folders whose name starts with a dot are caches."""
    for status in sorted(runs_dir.glob(f"*/*/{STATUS_FILE}")):
        if not status.parent.parent.name.startswith("."):
            yield status.parent


def _is_shared() -> bool:
    return bool(os.environ.get(URL_VARIABLE))


def _table() -> Table:
    from sqlalchemy import Column, MetaData, String, Table, Text

    def text(name: str, length: int, **options: Any) -> Column[Any]:
        return Column(name, String(length), nullable=False, **options)

    return Table(
        TABLE,
        MetaData(),
        text("uid", 32, primary_key=True),
        text("path", 512, primary_key=True),
        text("name", 255, index=True),
        text("kind", 255),
        text("spec_hash", 64, index=True),
        text("exact_hash", 64, index=True),
        text("status", 16),
        text("host", 255),
        text("started_at", 40, index=True),
        Column("finished_at", String(40)),
        Column("reason", Text),
    )


def _engine(runs_dir: Path) -> Engine:
    from sqlalchemy import URL, NullPool, StaticPool, create_engine, event, make_url
    from sqlalchemy.exc import ArgumentError

    given = os.environ.get(URL_VARIABLE)
    # Without a folder to put it in, the empty index lives in memory, on one connection that stays.
    in_memory = not given and not runs_dir.is_dir()
    file = None if in_memory else str(runs_dir / FILE_NAME)
    try:
        url = make_url(given) if given else URL.create("sqlite", database=file)
        sqlite = url.get_backend_name() == "sqlite"
        engine = create_engine(
            url,
            poolclass=StaticPool if in_memory else NullPool,
            connect_args={"timeout": BUSY_SECONDS} if sqlite else {},
        )
    except (ArgumentError, ModuleNotFoundError) as error:
        raise UserError(Problem(URL_VARIABLE, f"is no usable database URL: {error}")) from error
    if sqlite:
        # A transaction that writes takes the write lock at its start: two that read first and write
        # later would deadlock, and SQLite would fail one of them without waiting.
        @event.listens_for(engine, "connect")
        def _leave_begin_to_us(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _database_errors(engine: Engine) -> Generator[None]:
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except DatabaseError as error:
        if type(error) not in (DatabaseError, OperationalError):
            raise
        where = engine.url.render_as_string(hide_password=True)
        raise UserError(
            Problem(
                "run index",
                f"{where} can't be used: {error.orig}; the index of the run folders can be "
                f"deleted (it is rebuilt from them) or moved ({URL_VARIABLE})",
            )
        ) from error

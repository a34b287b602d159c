"""The database of an index: SQLite beside the run folders, or any database by MM_RUNS_URL.

SQLite and PostgreSQL are tested. Both let one process write at a time, from the start of its transaction
to the end.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_config.schema.errors import Problem, UserError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

FILE_NAME = "index.sqlite"
URL_VARIABLE = "MM_RUNS_URL"
BUSY_SECONDS = 60
CONNECT_SECONDS = "15"
_LOCK = 0x6D6D_7275_6E73
"""The number of PostgreSQL's advisory lock that writers of an index take."""


def is_shared() -> bool:
    """Whether several runs folders may have their runs in the same database."""
    return bool(os.environ.get(URL_VARIABLE))


def engine_of(runs_dir: Path) -> Engine:
    """The database of a runs folder; nothing is opened yet.

    Raises:
        UserError: MM_RUNS_URL is no URL, or no driver for it is installed.
    """
    from sqlalchemy import URL, NullPool, StaticPool, create_engine

    given = os.environ.get(URL_VARIABLE)
    if given:
        return _shared_engine(given)
    # Without a folder to put it in, the empty index lives in memory, on one connection that stays.
    in_memory = not runs_dir.is_dir()
    url = URL.create("sqlite", database=None if in_memory else str(runs_dir / FILE_NAME))
    pool = StaticPool if in_memory else NullPool
    return _sqlite(create_engine(url, poolclass=pool, connect_args={"timeout": BUSY_SECONDS}))


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """A transaction that no other writing one overlaps, committed at the end of the block."""
    with database_errors(engine), engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            from sqlalchemy import func, select

            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        yield connection


@contextmanager
def database_errors(engine: Engine) -> Generator[None]:
    """What is wrong with the database, or with access to it, as one line."""
    from sqlalchemy.exc import DatabaseError, IntegrityError

    try:
        yield
    except IntegrityError:
        raise
    except DatabaseError as error:
        where = engine.url.render_as_string(hide_password=True)
        reason = " ".join(str(error.orig).split())
        remedy = (
            f"the index of the run folders can be deleted (it is rebuilt from them) or moved ({URL_VARIABLE})"
            if engine.dialect.name == "sqlite"
            else f"{URL_VARIABLE} names this database; without it the index lies beside the run folders"
        )
        raise UserError(Problem("run index", f"{where} can't be used: {reason}; {remedy}")) from error


def _shared_engine(given: str) -> Engine:
    from sqlalchemy import NullPool, create_engine, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = _with_driver(make_url(given))
        if url.get_backend_name() == "sqlite":
            return _sqlite(create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS}))
        waits = {"connect_timeout": CONNECT_SECONDS} if url.drivername == "postgresql+psycopg" else {}
        return create_engine(url.update_query_dict({**waits, **url.query}), poolclass=NullPool)
    except ModuleNotFoundError as error:
        extra = " (pip install 'mm-config[postgres]')" if error.name == "psycopg" else ""
        message = f"needs the driver {error.name}, which is not installed{extra}"
        raise UserError(Problem(URL_VARIABLE, message)) from error
    except ArgumentError as error:
        raise UserError(Problem(URL_VARIABLE, f"is no usable database URL: {error}")) from error


def _with_driver(url: URL) -> URL:
    """PostgreSQL's own spellings of the URL name no driver; SQLAlchemy's default has changed over time."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def _sqlite(engine: Engine) -> Engine:
    """SQLite whose transactions that write take the write lock at their start.

    Two that read first and write later would deadlock, and SQLite would fail one of them without waiting.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _leave_begin_to_us(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine

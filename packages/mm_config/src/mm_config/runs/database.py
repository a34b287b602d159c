"""The database of an index: SQLite beside the run folders, or any database by MM_RUNS_URL.

SQLite and PostgreSQL are tested. Both let one process write at a time, from the start of its transaction
to the end.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mm_config.console.output import aside
from mm_config.schema.errors import Problem, UserError

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import URL, Connection, Engine, Select

T = TypeVar("T")

FILE_NAME = "index.sqlite"
URL_VARIABLE = "MM_RUNS_URL"
BUSY_SECONDS = 60
CONNECT_SECONDS = "15"
_LOCK = 0x6D6D_7275_6E73
"""The number of PostgreSQL's advisory lock that writers of an index take."""
_CODES = "BUSY LOCKED PROTOCOL READONLY CANTOPEN PERM AUTH FULL IOERR NOMEM"
_NO_DAMAGE = tuple(f"SQLITE_{code}" for code in _CODES.split())
"""How the names of those errors of SQLite begin that say nothing of what the file holds."""


class UnusableIndex(UserError):
    """A database that can't be opened, read or written."""


class DamagedIndex(UnusableIndex):
    """The file beside the run folders, which holds something else than this version of the program writes."""


def is_shared() -> bool:
    """Whether several runs folders may have their runs in the same database."""
    return bool(os.environ.get(URL_VARIABLE))


def engine_of(runs_dir: Path, file_name: str = FILE_NAME) -> Engine:
    """The database of a runs folder; nothing is opened yet.

    Args:
        runs_dir: The folder.
        file_name: Of SQLite's file in it, where MM_RUNS_URL names no other database.

    Raises:
        UserError: MM_RUNS_URL is no URL, or no driver for it is installed.
    """
    from sqlalchemy import URL, NullPool, create_engine

    given = os.environ.get(URL_VARIABLE)
    if given:
        return _shared_engine(given)
    # Without a folder to put it in, the empty index lives in memory.
    if not runs_dir.is_dir():
        return in_memory(None)
    url = URL.create("sqlite", database=str(runs_dir / file_name))
    return _sqlite(create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS}))


def in_memory(runs_dir: Path | None) -> Engine:
    """A database in memory, on one connection that stays, with what can be read of a runs folder's."""
    import sqlite3

    from sqlalchemy import URL, StaticPool, create_engine

    engine = _sqlite(create_engine(URL.create("sqlite"), poolclass=StaticPool))
    if runs_dir is not None and os.path.isfile(runs_dir / FILE_NAME):  # A pipe would be waited for.
        file = f"{(runs_dir / FILE_NAME).absolute().as_uri()}?mode=ro"
        with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=0, uri=True)) as source:
            # Copying waits without end for a lock; a transaction that can read has it already.
            source.executescript("BEGIN; SELECT name FROM sqlite_master")
            source.backup(cast("sqlite3.Connection", engine.raw_connection().dbapi_connection))
    return engine


@contextmanager
def alone(runs_dir: Path) -> Generator[None]:
    """For the one process at a time that may set the file of a runs folder aside."""
    folder = os.open(runs_dir, os.O_RDONLY)
    try:
        # Without such locks, what two make anew at once may be damaged, and is made again.
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def file_in(runs_dir: Path) -> int | None:
    """The number that the file system gives the database beside the run folders; None where there is none."""
    try:
        return (runs_dir / FILE_NAME).stat().st_ino
    except OSError:
        return None


def set_aside(runs_dir: Path) -> None:
    """Makes room for a new database beside the run folders. The old is kept, so that each has its number."""
    for suffix in ("-journal", "-wal", "-shm"):
        (runs_dir / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (runs_dir / FILE_NAME).replace(runs_dir / f"{FILE_NAME}.damaged")


@contextmanager
def writing(engine: Engine, alone: bool = True) -> Generator[Connection]:
    """A transaction that no other writing one overlaps, committed at the end of the block.

    Where rows are locked one by one, as PostgreSQL does, several may write at once with `alone=False`.
    """
    with database_errors(engine), engine.execution_options(writes=True).begin() as connection:
        if alone and engine.dialect.name == "postgresql":
            from sqlalchemy import func, select

            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        yield connection


def rows(engine: Engine, query: Select[*tuple[Any, ...]], read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """What is read from the rows of a query; a row that this program did not write is damage."""
    try:
        with database_errors(engine), engine.connect() as connection:
            return [read(cast("Mapping[str, Any]", row)) for row in connection.execute(query).mappings()]
    except UserError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise unusable(engine, error) from error


@contextmanager
def database_errors(engine: Engine) -> Generator[None]:
    """What is wrong with the database, or with access to it, as one line."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        raise unusable(engine, error.orig) from error


@contextmanager
def indexing(folder: Path) -> Generator[None]:
    """Tells the index, which follows the folder: what it can't be told, it reads when it is opened next."""
    try:
        yield
    except UnusableIndex as error:
        aside(f"{error.problems[0]}; {folder} is taken into the index when that is opened next")


def unusable(engine: Engine, cause: BaseException | None) -> UnusableIndex:
    """What is wrong with a database; `DamagedIndex` where that is mended by removing its file."""
    reason = (
        f"{engine.url.render_as_string(hide_password=True)} can't be used: {' '.join(str(cause).split())}"
    )
    if is_shared():
        remedy = f"{URL_VARIABLE} names this database; without it the index lies beside the run folders"
        return UnusableIndex(Problem("run index", f"{reason}; {remedy}"))
    is_damaged = not getattr(cause, "sqlite_errorname", "").startswith(_NO_DAMAGE)
    return (DamagedIndex if is_damaged else UnusableIndex)(Problem("run index", reason))


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

"""The sha256 of files, each read once: digests are remembered until a file changes.

They lie in a database of the user's cache folder, by device and inode, and hold as long as size and times of
change are the same. A file that changed a moment ago is not remembered: it could change again within the same
tick of the clock (as git has it, a racy file). A cache that can't be used only costs time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from mm_config.console.output import progress
from mm_config.durable.reading import open_regular

FILE_NAME = "digests.sqlite"
RACY_NS = 2 * 10**9
_WORKERS = 4
_CHUNK_FILES, _CHUNK_BYTES = 256, 2**30
_SHOWN_FROM = 4 * 2**30
"""Bytes to read from which on a bar is shown."""
_BUSY_SECONDS = 120.0
_MIB = 2**20

State = tuple[str, str]
"""Where a file lies, by device and inode; its size and times of change in nanoseconds."""


def sha256_of_files(paths: Iterable[Path]) -> list[str | None]:
    """The sha256 of each file's bytes, in their order; None for one that can't be read.

    Processes that ask for the same files at once read each of them once.
    """
    paths = list(paths)
    found: dict[Path, str | None] = {}
    with _database() as database:
        found |= _known(database, paths)
        left = {
            path: size
            for path in dict.fromkeys(paths)
            if path not in found and (size := _size(path)) is not None
        }
        with _bar(sum(left.values())) as advance:
            for chunk in _chunks(left):
                with _alone(database):
                    meanwhile = _known(database, chunk)
                    found |= meanwhile | _read(database, [path for path in chunk if path not in meanwhile])
                advance(sum(left[path] for path in chunk))
    return [found.get(path) for path in paths]


def cache_file() -> Path | None:
    """The database of this user; None where the user has no home. A relative folder in the environment is
    ignored, as the XDG Base Directory Specification has it."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "mm" / FILE_NAME


def _known(database: sqlite3.Connection, paths: Sequence[Path]) -> dict[Path, str | None]:
    """The digests that are remembered of files that have not changed since."""
    states: dict[Path, State] = {}
    for path in paths:
        with suppress(OSError):
            states[path] = _state(path.stat())
    digests: dict[State, str] = {}
    with suppress(sqlite3.Error):
        for places in _batched((place for place, _ in states.values())):
            marks = ", ".join("?" * len(places))
            asked = f"SELECT place, state, sha256 FROM digests WHERE place IN ({marks})"
            digests |= {(place, state): digest for place, state, digest in database.execute(asked, places)}
    return {path: digests[state] for path, state in states.items() if state in digests}


def _batched(places: Iterator[str]) -> Iterator[tuple[str, ...]]:
    while batch := tuple(islice(places, _CHUNK_FILES)):
        yield batch


def _read(database: sqlite3.Connection, paths: Sequence[Path]) -> dict[Path, str | None]:
    """Reads files, and remembers the digests of those that can't change unseen."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        read = dict(zip(paths, pool.map(_hashed, paths), strict=True))
    rows = [(*state, digest) for digest, state in read.values() if state is not None]
    with suppress(sqlite3.Error):
        database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
    return {path: digest for path, (digest, _) in read.items()}


def _hashed(path: Path) -> tuple[str | None, State | None]:
    """The digest of a file, and its state where it holds for as long as that is the file's."""
    try:
        with open_regular(path) as file:
            before, now = os.fstat(file.fileno()), time.time_ns()
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError:
        return None, None
    is_racy = now - max(before.st_mtime_ns, before.st_ctime_ns) < RACY_NS
    return digest, None if is_racy or _state(before) != _state(after) else _state(before)


def _state(status: os.stat_result) -> State:
    changed = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_dev} {status.st_ino}", changed


def _size(path: Path) -> int | None:
    """Bytes of a regular file; None for anything else."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _chunks(sizes: Mapping[Path, int]) -> Iterator[list[Path]]:
    """Files that are read together: the database is one process's that long."""
    chunk: list[Path] = []
    held = 0
    for path, size in sizes.items():
        if chunk and (len(chunk) == _CHUNK_FILES or held + size > _CHUNK_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(path)
        held += size
    if chunk:
        yield chunk


@contextmanager
def _database() -> Generator[sqlite3.Connection]:
    """The database; where it can't be used, one in memory, which is forgotten."""
    file = cache_file()
    database = _connected(":memory:") if file is None else _opened(file)
    try:
        yield database
    finally:
        database.close()


def _opened(file: Path) -> sqlite3.Connection:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return _connected(file)
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                file.unlink()  # It is damaged; the next process makes it anew.
    except OSError:
        pass
    return _connected(":memory:")


def _connected(where: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(where, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        columns = "place TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL"
        database.execute(f"CREATE TABLE IF NOT EXISTS digests ({columns})")
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextmanager
def _alone(database: sqlite3.Connection) -> Generator[None]:
    """Others wait meanwhile, and find what was read; without the lock they read it, too."""
    with suppress(sqlite3.Error):
        database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            database.execute("COMMIT" if database.in_transaction else "SELECT 1")


@contextmanager
def _bar(total: int) -> Generator[Callable[[int], None]]:
    if total < _SHOWN_FROM:
        yield lambda count: None
        return
    with progress("hash files", total // _MIB, "MiB", max(total // _MIB // 20, 1)) as bar:
        yield lambda count: bar.advance(count // _MIB)

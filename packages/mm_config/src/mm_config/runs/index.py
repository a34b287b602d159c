"""The SQL index of runs: what was run, found by id, label, hash, date, status and fields of the spec.

The folders are the truth. An index that is missing, or of an older layout, is rebuilt from their
`status.json` and `spec.json` files when it is opened, so it can be deleted at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from mm_config.console.output import passing_over
from mm_config.runs import conditions as asked
from mm_config.runs.conditions import Aliases, Condition
from mm_config.runs.database import database_errors, engine_of, is_shared, writing
from mm_config.runs.field_texts import text_of, value_of
from mm_config.runs.lock import is_held
from mm_config.runs.record import RESULT_FILE, STATUS_FILE, RunRecord, RunStatus, is_storable, read_record
from mm_config.runs.stored import Stored, read_stored
from mm_config.runs.tables import HASHES, RECORD, RUNS, decoded, encoded, key_of, runs_table
from mm_config.schema.errors import Problem, UserError
from mm_config.stored.json_files import read_json

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Table

    from mm_config.runs.field_queries import FieldQueries

_CHUNK = 200
"""Runs that are inserted at once."""


@attrs.frozen
class Index:
    """The runs under one folder; made by `open_index`."""

    runs_dir: Path
    """The folder."""
    engine: Engine
    """The database."""
    runs: Table
    """Its table."""

    def add(self, record: RunRecord) -> None:
        """Registers a run. One that a rebuild has found in the meantime is replaced."""
        self.add_all([(record, read_stored(self.folder(record)))])

    def add_all(self, entries: Iterable[tuple[RunRecord, Stored]]) -> None:
        """Registers runs, each with what its folder stores, in one transaction."""
        with writing(self.engine) as connection:
            self._replace(connection, entries)

    def set_status(self, record: RunRecord) -> None:
        """Stores the status, the time and the reason of a registered run."""
        row = encoded(record)
        changed = {name: row[name] for name in ("status", "finished_at", "reason")}
        runs = self.runs
        with writing(self.engine) as connection:
            connection.execute(runs.update().where(runs.c.key == row["key"]).values(changed))

    def list(
        self,
        *,
        matching: str | None = None,
        name: str | None = None,
        status: RunStatus | None = None,
        since: str | None = None,
        until: str | None = None,
        where: Sequence[Condition] = (),
        aliases: Aliases | None = None,
    ) -> tuple[RunRecord, ...]:
        """Runs that meet every condition, newest first.

        Args:
            matching: A run id (`tiny_high/20261122-7f3a91c2d0e4-1`), a run folder's own name, a label, or
                the beginning of a spec_hash or an exact_hash, of the run's start or of today, or of what a
                run was made of.
            name: The exact label.
            status: How far the run has come.
            since: First date or time in ISO 8601 (`2026-11-22`), UTC where it names no zone.
            until: First date or time that is too late.
            where: Conditions on fields of the spec.
            aliases: Short names that the conditions may use.

        Raises:
            UserError: A date is none, no stored run has a field that a condition names, or the field
                holds another kind of value in all of them.
        """
        columns = self.runs.c
        found: list[ColumnElement[bool]] = []
        if not all(is_storable(text) for text in (matching, name) if text is not None):
            return ()
        if matching is not None:
            found.append(self._named_or_hashed(matching))
        if name is not None:
            found.append(columns.name == name)
        if since is not None:
            found.append(columns.started_at >= asked.moment(since))
        if until is not None:
            found.append(columns.started_at < asked.moment(until))
        found += [self._queries().met(condition, aliases or {}) for condition in where]
        records = self._read(*found)
        # A run that meets a condition has the field, and with a fitting kind of value, unless it is `!=`.
        self._check([one for one in where if not records or one.operator == "!="], aliases or {})
        return tuple(record for record in map(self._checked, records) if status in (None, record.status))

    def find_finished(self, spec_hash: str) -> tuple[RunRecord, ...]:
        """Finished runs of a spec whose result still lies in the folder, newest first.

        A run is found by the hash of its start and by the one that its payload has today. Runs that made
        other videos than those of the spec are left out.
        """
        columns = self.runs.c
        same_spec = (columns.spec_hash == spec_hash) | (columns.spec_hash_now == spec_hash)
        finished = columns.status == RunStatus.FINISHED.value
        found: list[RunRecord] = []
        for record in self._read(same_spec, finished, columns.requests_hash.is_(None)):
            result = self.folder(record) / RESULT_FILE
            with passing_over():
                if os.path.lexists(result) and uid_in(result.parent) == record.uid:
                    found.append(record)
        return tuple(found)

    def newest_named(self, key: str, but: str = "") -> tuple[RunRecord, str] | None:
        """The newest run in which a name met some content, by `name_key`, and the content's digest.

        Args:
            key: Of the name.
            but: The uid of a run that is left out.
        """
        from sqlalchemy import select

        columns, digest = self.runs.c, self.runs.c.named[key].as_string()
        query = select(*(columns[name] for name in RECORD), digest.label("digest")).where(digest.is_not(None))
        query = query.where(columns.uid != but)
        query = query.order_by(columns.started_at.desc(), columns.path.desc()).limit(1)
        with database_errors(self.engine), self.engine.connect() as connection:
            found = cast("Mapping[str, Any] | None", connection.execute(query).mappings().first())
        return None if found is None else (decoded(found), found["digest"])

    def fields(self, record: RunRecord) -> dict[str, Any]:
        """The fields of a run's spec by path: as its folder has them today, else as they were indexed."""
        if self.is_here(record):
            return read_stored(self.folder(record), by_hash=True).fields
        query = self.runs.select().with_only_columns(self.runs.c.fields)
        with database_errors(self.engine), self.engine.connect() as connection:
            found = connection.scalar(query.where(self.runs.c.key == key_of(record)))
        texts = cast("dict[str, Any]", found or {})
        return {path: value_of(text) for path, text in sorted(texts.items())}

    def folder(self, record: RunRecord) -> Path:
        """The folder of a run, where it is here."""
        return self.runs_dir / record.path

    def is_here(self, record: RunRecord) -> bool:
        """Whether the folder of a run is here.

        It may be gone; and a run that another runs folder has registered in a shared database may have
        the path of one that is here.
        """
        try:
            return uid_in(self.folder(record)) == record.uid
        except UserError:
            return False

    def reindex(self, read: Callable[[], object] = lambda: None) -> int:
        """Makes the index hold what the run folders hold, and counts them.

        A folder that holds no record is passed over, which is said. In a database that several runs folders
        share, only the runs found here are replaced.

        Args:
            read: Called after each folder that was read.
        """
        # Loading takes a few ms per run and what a folder stores never changes, so it is done before
        # other processes have to wait.
        contents: dict[Path, Stored] = {}
        for folder in run_folders(self.runs_dir):
            contents[folder] = read_stored(folder)
            read()
        count = 0

        def entries() -> Iterator[tuple[RunRecord, Stored]]:
            nonlocal count
            for folder in run_folders(self.runs_dir):
                with passing_over():
                    yield read_record(folder, self.runs_dir), contents.get(folder) or read_stored(folder)
                    count += 1

        with writing(self.engine) as connection:
            self.runs.create(connection, checkfirst=True)
            if not is_shared():
                connection.execute(self.runs.delete())
            self._replace(connection, entries())
        return count

    def _replace(self, connection: Connection, entries: Iterable[tuple[RunRecord, Stored]]) -> None:
        rest = iter(entries)
        while chunk := list(islice(rest, _CHUNK)):
            keys = [key_of(record) for record, _ in chunk]
            connection.execute(self.runs.delete().where(self.runs.c.key.in_(keys)))
            connection.execute(self.runs.insert(), [_row(record, content) for record, content in chunk])

    def _named_or_hashed(self, text: str) -> ColumnElement[bool]:
        columns = self.runs.c
        found = (columns.path == text) | (columns.folder == text) | (columns.name == text)
        prefix = text.lower()
        if re.fullmatch("[0-9a-f]{1,64}", prefix):
            # LIKE ignores case in SQLite only, and uses an index in neither database. "g" follows "f".
            for name in HASHES:
                found |= columns[name].between(prefix, f"{prefix}g")
        return found

    def _check(self, where: Sequence[Condition], aliases: Aliases) -> None:
        """Refuses conditions that no stored run can meet, because of a wrong name or kind of value."""
        if not where:
            return
        problems: list[Problem | None] = []
        with database_errors(self.engine), self.engine.connect() as connection:
            for condition in where:
                if held := self._queries().examples(condition, aliases, connection):
                    problems.append(asked.mismatch(condition, held))
                elif known := self._queries().known_paths(connection):
                    problems.append(asked.unknown_field(condition, known, aliases))
        if found := list(filter(None, problems)):
            raise UserError(found)

    def _queries(self) -> FieldQueries:
        from mm_config.runs.field_queries import FieldQueries

        return FieldQueries(self.runs, self.engine.dialect.name == "postgresql")

    def _read(self, *conditions: ColumnElement[bool]) -> tuple[RunRecord, ...]:
        from sqlalchemy import select

        columns = self.runs.c
        query = select(*(columns[name] for name in RECORD)).where(*conditions)
        query = query.order_by(columns.started_at.desc(), columns.path.desc())
        with database_errors(self.engine), self.engine.connect() as connection:
            rows = cast("Iterable[Mapping[str, Any]]", connection.execute(query).mappings())
            return tuple(map(decoded, rows))

    def _checked(self, record: RunRecord) -> RunRecord:
        """A killed process can't say so: a run that no process holds any more was interrupted."""
        running = record.status is RunStatus.RUNNING
        if running and self.is_here(record) and not is_held(self.folder(record)):
            return attrs.evolve(record, status=RunStatus.INTERRUPTED)
        return record


def open_index(runs_dir: Path) -> Index:
    """Opens the index of a runs folder, rebuilding it where it is missing.

    A runs folder that does not exist has an empty index, and is not made.

    Raises:
        UserError: The database can't be opened.
    """
    from sqlalchemy import inspect

    index = unfilled_index(runs_dir)
    with database_errors(index.engine):
        missing = not inspect(index.engine).has_table(RUNS)
    if missing:
        index.reindex()
    return index


def unfilled_index(runs_dir: Path) -> Index:
    """The index of a runs folder whose tables may be missing, for a caller who reindexes at once.

    Raises:
        UserError: The database's URL is none, or its driver is missing.
    """
    return Index(runs_dir, engine_of(runs_dir), runs_table())


def run_folders(runs_dir: Path) -> Iterator[Path]:
    """Every run folder, `<name>/<run>`; folders whose name starts with a dot are caches."""
    for status in sorted(runs_dir.glob(f"*/*/{STATUS_FILE}")):
        if not status.parent.parent.name.startswith("."):
            yield status.parent


def uid_in(folder: Path) -> Any:
    """The uid of the run that lies in a folder. Raises UserError where its status can't be read."""
    return read_json(folder / STATUS_FILE).get("uid")


def _row(record: RunRecord, content: Stored) -> dict[str, Any]:
    fields = {path: text_of(value) for path, value in content.fields.items()}
    return {**encoded(content.updated(record)), "fields": fields, "named": dict(content.named)}

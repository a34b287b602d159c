"""The SQL index of runs: what was run, found by id, label, hash, date, status and fields of the spec.

The folders are the truth. When an index is opened it takes in what a killed process, or somebody who put
folders there, kept from it; one that is missing, damaged or of an older layout is made anew from their
`status.json` and `spec.json` files. So it can be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from mm_config.console.output import aside, passing_over
from mm_config.runs import database, tables
from mm_config.runs.asking import Asked
from mm_config.runs.conditions import Aliases, Condition, moment
from mm_config.runs.database import DamagedIndex, UnusableIndex, database_errors, is_shared, writing
from mm_config.runs.field_texts import text_of, value_of
from mm_config.runs.listing import as_it_is, behind_of, records, run_folders
from mm_config.runs.record import RESULT_FILE, RunRecord, RunStatus, is_storable, uid_in
from mm_config.runs.stored import Stored, read_all, read_stored
from mm_config.runs.tables import RECORD, decoded, encoded, key_of
from mm_config.schema.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Select, Table

    from mm_config.runs.field_queries import FieldQueries

T = TypeVar("T")


@attrs.frozen
class Index:
    """The runs under one folder; made by `open_index`."""

    runs_dir: Path
    """The folder."""
    engine: Engine
    """The database."""
    runs: Table
    """Its table."""
    file: int | None = None
    """Which file it is, by `file_in`; None where it is none that can be made anew."""

    def add(self, record: RunRecord) -> None:
        """Registers a run. One that a rebuild has found in the meantime is replaced."""
        self.add_all([(record, read_stored(self.folder(record)))])

    def add_all(self, entries: Iterable[tuple[RunRecord, Stored]]) -> None:
        """Registers runs, each with what its folder stores, in one transaction."""
        with writing(self.engine) as connection:
            tables.replace(connection, self.runs, (_row(*entry) for entry in entries))

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
        """Runs that meet every condition, newest first; `Asked` says what each means.

        Raises:
            UserError: A date is none, no stored run has a field that a condition names, or the field
                holds another kind of value in all of them.
        """
        asked = Asked(
            matching=matching, name=name, since=since, until=until, where=tuple(where), aliases=aliases or {}
        )
        if (found := self.met(asked)) is None:
            return ()
        records = self.read(*found)
        # A run that meets a condition has the field, and with a fitting kind of value, unless it is `!=`.
        self.check([one for one in where if not records or one.operator == "!="], aliases or {})
        return tuple(
            record
            for record in (as_it_is(record, self.runs_dir) for record in records)
            if status in (None, record.status)
        )

    def met(self, asked: Asked) -> list[ColumnElement[bool]] | None:
        """All conditions but that on the status, as SQL; None where no run can meet them. Raises UserError
        where a date is none."""
        columns = self.runs.c
        if not all(is_storable(text) for text in (asked.matching, asked.name) if text is not None):
            return None
        found: list[ColumnElement[bool]] = []
        if asked.matching is not None:
            found.append(tables.named_or_hashed(self.runs, asked.matching))
        if asked.name is not None:
            found.append(columns.name == asked.name)
        if asked.since is not None:
            found.append(columns.started_at >= moment(asked.since))
        if asked.until is not None:
            found.append(columns.started_at < moment(asked.until))
        return found + [self.queries.met(condition, asked.aliases) for condition in asked.where]

    def find_finished(self, spec_hash: str) -> tuple[RunRecord, ...]:
        """Finished runs of a spec whose result still lies in the folder, newest first.

        A run is found by the hash of its start and by the one that its payload has today. Runs that made
        other videos than those of the spec are left out.
        """
        columns = self.runs.c
        same_spec = (columns.spec_hash == spec_hash) | (columns.spec_hash_now == spec_hash)
        finished = columns.status == RunStatus.FINISHED.value
        found: list[RunRecord] = []
        for record in self.read(same_spec, finished, columns.requests_hash.is_(None)):
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
        query = select(*(columns[name] for name in RECORD), digest.label("digest"))
        query = query.where(digest.is_not(None), columns.uid != but)
        query = query.order_by(columns.started_at.desc(), columns.path.desc()).limit(1)
        return next(iter(self.found(query, lambda row: (decoded(row), row["digest"]))), None)

    def fields(self, record: RunRecord) -> dict[str, Any]:
        """The fields of a run's spec by path: as its folder has them today, else as they were indexed."""
        if self.is_here(record):
            return read_stored(self.folder(record), by_hash=True).fields
        query = self.runs.select().with_only_columns(self.runs.c.fields)
        query = query.where(self.runs.c.key == key_of(record))
        found = self.found(query, lambda row: {path: value_of(text) for path, text in row["fields"].items()})
        return dict(sorted(found[0].items())) if found else {}

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
        contents = read_all(run_folders(self.runs_dir), read)
        return self._mended(lambda: self._fill(contents))

    def follow(self) -> None:
        """Takes in what the run folders hold and the index lacks; what it has of folders gone, stays."""
        self._mended(self._follow)

    def _fill(self, contents: Mapping[Path, Stored]) -> int:
        with writing(self.engine) as connection:
            self.runs.create(connection, checkfirst=True)
            if not is_shared():
                connection.execute(self.runs.delete())
            return self._replace(connection, run_folders(self.runs_dir), contents)

    def _follow(self) -> None:
        from sqlalchemy import inspect, select

        with database_errors(self.engine):
            is_new = not inspect(self.engine).has_table(tables.RUNS)
        if is_new:
            self._fill(read_all(run_folders(self.runs_dir)))
            return
        query = select(self.runs.c.path, self.runs.c.uid, self.runs.c.status)
        known = database.rows(self.engine, query, lambda row: (row["path"], row["uid"], row["status"]))
        if behind := behind_of(self.runs_dir, known):
            contents = read_all(behind)
            with writing(self.engine) as connection:
                self._replace(connection, behind, contents)

    def _mended(self, work: Callable[[], T], first: Callable[[], object] = lambda: None) -> T:
        """Does a work, again where the file is damaged; that is set aside, unless another has done so."""
        try:
            return work()
        except DamagedIndex as damage:
            if self.file is None:
                raise
            with database.alone(self.runs_dir):
                if database.file_in(self.runs_dir) == self.file:
                    aside(f"{damage.problems[0]}; it is made anew from the run folders")
                    database.set_aside(self.runs_dir)
            first()
            return work()

    def _replace(
        self, connection: Connection, folders: Iterable[Path], contents: Mapping[Path, Stored]
    ) -> int:
        read = ((one, contents.get(folder) or read_stored(folder)) for folder, one in records(folders))
        return tables.replace(connection, self.runs, (_row(record, content) for record, content in read))

    def check(self, where: Sequence[Condition], aliases: Aliases) -> None:
        """Refuses conditions that no stored run can meet.

        Raises:
            UserError: No stored run has a field, or it holds another kind of value in all of them.
        """
        if not where:
            return
        with database_errors(self.engine), self.engine.connect() as connection:
            if found := list(self.queries.problems(where, aliases, connection)):
                raise UserError(found)

    @property
    def queries(self) -> FieldQueries:
        """Conditions on fields as its database has them."""
        from mm_config.runs.field_queries import FieldQueries

        return FieldQueries(self.runs, self.engine.dialect.name == "postgresql")

    def read(self, *conditions: ColumnElement[bool]) -> tuple[RunRecord, ...]:
        """The runs that meet conditions on the table's columns, newest first, as the index has them."""
        from sqlalchemy import select

        columns = self.runs.c
        query = select(*(columns[name] for name in RECORD)).where(*conditions)
        query = query.order_by(columns.started_at.desc(), columns.path.desc())
        return tuple(self.found(query, decoded))

    def found(self, query: Select[*tuple[Any, ...]], read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        """What is read of each row of a query; a damaged file is made anew first."""
        return self._mended(lambda: database.rows(self.engine, query, read), self._follow)


def open_index(runs_dir: Path) -> Index:
    """Opens the index of a runs folder, which then holds what the folders hold.

    Where the file beside the folders can't be used, that is said, and the index lives in memory. A runs
    folder that does not exist has an empty index, and is not made.

    Raises:
        UserError: The runs folder can't be read, or the database that MM_RUNS_URL names can't be used.
    """
    index = unfilled_index(runs_dir)
    try:
        index.follow()
    except UnusableIndex as error:
        if is_shared():
            raise
        aside(f"{error.problems[0]}; the run folders are read instead")
        index = Index(runs_dir, database.in_memory(runs_dir), index.runs)
        try:
            index.follow()
        except UnusableIndex:  # Nor can it be copied.
            index = Index(runs_dir, database.in_memory(None), index.runs)
            index.follow()
    return index


def unfilled_index(runs_dir: Path) -> Index:
    """The index of a runs folder as it is found, for a caller who reindexes at once.

    Raises:
        UserError: The database's URL is none, or its driver is missing.
    """
    file = None if is_shared() else database.file_in(runs_dir)
    return Index(runs_dir, database.engine_of(runs_dir), tables.runs_table(), file)


def _row(record: RunRecord, content: Stored) -> dict[str, Any]:
    fields = {path: text_of(value) for path, value in content.fields.items()}
    return {**encoded(content.updated(record)), "fields": fields, "named": dict(content.named)}

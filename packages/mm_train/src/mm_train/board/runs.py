"""The runs that a board shows: pages from the index, one run from its folder. Only the index is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config.runs import (
    Asked,
    Index,
    Listed,
    Run,
    RunRecord,
    RunsPage,
    attach,
    open_index,
    page_of,
    read_inputs,
    read_provenance,
    read_result,
    runs_that_name,
)
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import TrainSpec
from mm_train.report.reading import Told, told_by

FOLLOWED_SECONDS = 3.0
"""How old an answer of the index may be in what processes elsewhere did."""
FIELDS_SECONDS = 60.0
"""How old the names of fields may be that a reader is offered."""
MOST_LINKS = 200
"""Runs that are named as made of one."""


@attrs.frozen
class Shown:
    """A run, as far as it can be read."""

    record: RunRecord
    """What the index knows."""
    folder: Path
    """Where it lies, or lay."""
    is_here: bool
    """Whether it lies there."""
    run: Run | None = None
    """Its folder, opened."""
    told: Told | None = None
    """What a training wrote; None for other runs, and for one that can't be read."""
    result: dict[str, Any] = attrs.field(factory=dict)
    """What it came to; empty while it runs."""
    provenance: dict[str, Any] = attrs.field(factory=dict)
    """Where it comes from."""
    offset: int = 0
    """Bytes of its numbers that were there when they were read."""
    problems: tuple[str, ...] = ()
    """What could not be read, and why."""


@attrs.frozen
class Link:
    """A run that another was made of, or that was made of it."""

    path: str
    """Its id."""
    field: str
    """The field that took the one into the other."""
    known: bool = True
    """Whether the run is in this folder, so that it can be shown."""
    record: RunRecord | None = None
    """What the index knows of it."""


class Board:
    """The runs of a folder. One thread at a time asks the index."""

    def __init__(self, runs_dir: Path) -> None:
        """Opens the index.

        Raises:
            UserError: The runs folder can't be read, or its database can't be used.
        """
        self.runs_dir = runs_dir.resolve()  # As `file_below` names files.
        self._index = open_index(self.runs_dir)
        self._lock = threading.Lock()
        self._followed = self._fields_read = time.monotonic()
        self._fields: list[str] = []

    def page(self, asked: Asked) -> RunsPage:
        """A page of runs.

        Raises:
            UserError: As `page_of`.
        """
        with self._lock:
            return page_of(self._current(), asked)

    def fields(self) -> list[str]:
        """The paths of the fields that the newest runs have, as they were lately."""
        with self._lock:
            if not self._fields or time.monotonic() - self._fields_read > FIELDS_SECONDS:
                newest = page_of(self._current(), Asked(most=8)).runs
                self._fields = sorted({path for run in newest for path in self._index.fields(run.record)})
                self._fields_read = time.monotonic()
            return self._fields

    def find(self, path: str) -> Listed | None:
        """The run with an id, the one that is here before others; None where there is none."""
        with self._lock:
            index = self._current()
            found = [run for run in page_of(index, Asked(matching=path)).runs if run.record.path == path]
            return min(found, key=lambda run: not index.is_here(run.record), default=None)

    def shown(self, path: str) -> Shown | None:
        """All that is known of a run; None where no run has the id."""
        if (listed := self.find(path)) is None:
            return None
        record, folder = listed.record, self._index.folder(listed.record)
        if not self._index.is_here(record):
            return Shown(record, folder, False, problems=(f"{folder}: the folder of this run is not here",))
        problems: list[Problem] = []
        run, told = None, None
        result: dict[str, Any] = {}
        provenance: dict[str, Any] = {}
        with gathering(problems):
            result = read_result(folder)
        with gathering(problems):
            provenance = read_provenance(folder / "provenance.json")
        with gathering(problems):
            run = attrs.evolve(attach(folder), record=record)
        offset = 0
        if run is not None and isinstance(run.spec, TrainSpec):
            offset = run.metrics_path.stat().st_size if run.metrics_path.is_file() else 0
            with gathering(problems):
                told = told_by(run)
        return Shown(record, folder, True, run, told, result, provenance, offset, tuple(map(str, problems)))

    def parents(self, shown: Shown) -> list[Link]:
        """The runs that a run was made of, by what it wrote at its start."""
        try:
            inputs = read_inputs(shown.folder) if shown.is_here else None
        except UserError:
            return []  # `attach` and the page say what can't be read.
        named = [(path, one.details.get("run")) for path, one in (inputs or {}).items()]
        links = [Link(run, field) for field, run in named if isinstance(run, str)]
        return [self._known(link) for link in links]

    def children(self, shown: Shown) -> list[Link]:
        """The runs that were made of a run: those whose specs name it, and which took it and no other."""
        record = shown.record
        texts = {record.spec_hash, record.spec_hash_now or record.spec_hash, record.path.rpartition("/")[2]}
        with self._lock:
            found = runs_that_name(self._current(), sorted(texts))
        return [link for one in found[:MOST_LINKS] for link in self._taking(one, shown)]

    def _taking(self, other: RunRecord, shown: Shown) -> Iterator[Link]:
        folder = self.runs_dir / other.path
        try:
            inputs = read_inputs(folder) if other.uid != shown.record.uid else {}
        except UserError:
            inputs = None
        if inputs is None:
            yield Link(other.path, "its spec names it; what it was made of is not recorded", record=other)
            return
        for field, one in inputs.items():
            if one.details.get("run") == shown.record.path:
                yield Link(other.path, field, record=other)

    def _known(self, link: Link) -> Link:
        found = self.find(link.path)
        return attrs.evolve(link, known=found is not None, record=found.record if found else None)

    def _current(self) -> Index:
        """The index, which has heard of runs that were put here lately."""
        if time.monotonic() - self._followed > FOLLOWED_SECONDS:
            self._index.follow()
            self._followed = time.monotonic()
        return self._index

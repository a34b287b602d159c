"""Which run folders there are, and where an index and they differ. The folders are the truth."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from mm_config.console.output import passing_over
from mm_config.runs.lock import is_held
from mm_config.runs.record import STATUS_FILE, RunRecord, RunStatus, read_record
from mm_config.schema.errors import Problem, UserError


def run_folders(runs_dir: Path) -> Iterator[Path]:
    """Every run folder, `<name>/<run>`, in order; names that start with a dot are caches and stages."""
    for path in sorted(_listed(runs_dir)):
        if _has_status(folder := runs_dir / path):
            yield folder


def behind_of(runs_dir: Path, known: Iterable[tuple[str, str, str]]) -> list[Path]:
    """The folders that an index has to read again, in order.

    An index hears of a new run and of a run's end after the folder has it, and that a run goes on before. So
    it is behind where it lacks a folder, or has a run as running that has ended in its folder. No file of
    another run is read.

    Args:
        runs_dir: The runs folder.
        known: Path, uid and status of every run of the index.
    """
    listed, paths, running = set(_listed(runs_dir)), set[str](), dict[str, str]()
    for path, uid, status in known:
        paths.add(path)
        if status == RunStatus.RUNNING.value and path in listed:
            running[path] = uid
    missing = (runs_dir / path for path in listed - paths)
    behind = [folder for folder, _ in records(filter(_has_status, missing))]
    for path, uid in running.items():
        with suppress(UserError):
            record = record_of(runs_dir / path)
            if record.uid == uid and record.status is not RunStatus.RUNNING:
                behind.append(runs_dir / path)
    return sorted(behind)


def records(folders: Iterable[Path]) -> Iterator[tuple[Path, RunRecord]]:
    """Each run's record by its folder; a folder that holds none is passed over, which is said."""
    for folder in folders:
        with passing_over():
            yield folder, record_of(folder)


def record_of(folder: Path) -> RunRecord:
    """The record of a run folder, in which a run that a process holds has not ended.

    Raises:
        UserError: The folder holds no record.
    """
    try:
        held = is_held(folder)  # Asked first: a run that is let go has ended in its folder before.
    except OSError as error:
        raise UserError(Problem(str(folder), f"can't be read: {error.strerror}")) from error
    record = read_record(folder, folder.parent.parent)
    return attrs.evolve(record, status=RunStatus.RUNNING) if held else record


def as_it_is(record: RunRecord, runs_dir: Path) -> RunRecord:
    """What is true of a run that an index has as running.

    A killed process can't say so: a run that no process holds any more was interrupted, unless it has ended
    since the index was asked.
    """
    folder = runs_dir / record.path
    if record.status is not RunStatus.RUNNING:
        return record
    try:
        if is_held(folder):
            return record
        now = read_record(folder, runs_dir)
    except (OSError, UserError):  # It is not here, and who can't see a folder does not judge it.
        return record
    if now.uid != record.uid:
        return record
    status = RunStatus.INTERRUPTED if now.status is RunStatus.RUNNING else now.status
    return attrs.evolve(record, status=status, finished_at=now.finished_at, reason=now.reason)


def _listed(runs_dir: Path) -> Iterator[str]:
    for label in _folders(runs_dir):
        with passing_over():
            for run in _folders(label.path):
                yield f"{label.name}/{run.name}"


def _has_status(folder: Path) -> bool:
    """Whether a folder is a run's, or nobody may look: whoever reads it then says so."""
    try:
        os.lstat(folder / STATUS_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _folders(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise UserError(Problem(os.fspath(folder), f"can't be read: {error.strerror}")) from error

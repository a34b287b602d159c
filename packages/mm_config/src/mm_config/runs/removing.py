"""Removes runs that no other run was made of, and what killed processes left in a runs folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import attrs

from mm_config.content.inputs import Input
from mm_config.durable.leftovers import is_abandoned, remove, size_of, stage_of, stages
from mm_config.durable.reading import outside
from mm_config.durable.writing import discard
from mm_config.options.run_options import REPRODUCTIONS
from mm_config.runs import lock
from mm_config.runs.database import UnusableIndex, writing
from mm_config.runs.index import Index
from mm_config.runs.inputs import read_inputs
from mm_config.runs.listing import run_folders
from mm_config.runs.record import RunRecord, uid_in
from mm_config.runs.stored import read_stored
from mm_config.runs.tables import key_of
from mm_config.schema.errors import Problem, UserError

TRASH = ".trash"
"""Folder below the runs folder in which runs are deleted: what lies there is no run any more."""


@attrs.frozen
class Leftover:
    """Something that a process left."""

    path: Path
    """Where it lies."""
    size: int
    """Bytes."""
    is_over: bool
    """Whether its process has provably ended; else nothing tells, and a person has to know."""


def kept_by_others(index: Index, records: Sequence[RunRecord]) -> Iterator[Problem]:
    """Why runs should stay: each run, not among these, that was made of one of them, with the field.

    What a run recorded as its inputs decides; where it recorded none, the trainings that its spec names.
    """
    going = {index.folder(record).resolve(): record for record in records}
    hashes = {digits: record for record in records for digits in record.hashes[:4]}
    for runs_dir in (index.runs_dir, index.runs_dir / REPRODUCTIONS):
        for folder in run_folders(runs_dir):
            if folder.resolve() in going:
                continue
            name = folder.relative_to(index.runs_dir).as_posix()
            try:
                inputs = read_inputs(folder)
            except UserError as error:
                why = "so nothing tells whether it was made of a run that would go"
                yield Problem(name, f"what it was made of can't be read ({error.problems[0]}), {why}")
                continue
            if inputs is None:
                used = {f"spec.{path}": hashes.get(value) for path, value in _texts(folder)}
            else:
                used = {path: _taken(one, going) for path, one in inputs.items()}
            for path, record in used.items():
                if record is not None:
                    yield Problem(record.path, f"{name} was made of it ({path.removesuffix('.spec')})")


def remove_run(index: Index, record: RunRecord, *, unread: bool = False) -> None:
    """Removes a run: from the index, then its folder, which is renamed into the trash before it is deleted.

    A process that is killed meanwhile leaves the whole run, or something in the trash for `remove_leftovers`.

    Args:
        index: The index of its runs folder.
        record: The run.
        unread: Whether a folder goes whose status can't be read, so that nothing tells that it is this run's.

    Raises:
        UserError: A process uses it, its folder holds another run or lies elsewhere, or it can't be removed.
    """
    folder = index.folder(record)
    if problem := outside(record.path, index.runs_dir, follow=False):
        raise UserError(Problem(record.path, f"is no folder of {index.runs_dir}: {problem}"))
    if not folder.is_dir():
        forget(index, record)
        return
    try:
        uid = uid_in(folder)
    except UserError:
        if not unread:
            raise
        uid = record.uid
    if uid != record.uid:
        raise UserError(Problem(record.path, "its folder holds another run by now"))
    trash, is_full = index.runs_dir / TRASH, False
    try:
        try:
            lock.acquire(folder)
        except OSError as error:  # On a full disk nobody else can take it either.
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT) and not lock.is_held(folder)
            if not is_full:
                raise
        try:
            with suppress(OSError):  # A full disk may take no folder; then it is deleted beside its place.
                trash.mkdir()
            with suppress(UnusableIndex) if is_full else nullcontext():
                forget(index, record)
            discard(folder, stage_of(trash / folder.name) if trash.is_dir() else None)
            # Whoever looked before the folder was gone may have taken the run into the index again.
            forget(index, record)
        finally:
            lock.release(folder)
    except OSError as error:
        raise UserError(Problem(str(folder), f"can't be removed: {error.strerror}")) from error
    finally:
        for emptied in (folder.parent, trash):
            with suppress(OSError):
                emptied.rmdir()


def forget(index: Index, record: RunRecord) -> None:
    """Takes a run out of the index; its folder stays as it is."""
    with writing(index.engine) as connection:
        connection.execute(index.runs.delete().where(index.runs.c.key == key_of(record)))


def leftovers(runs_dir: Path) -> list[Leftover]:
    """What processes left below a runs folder; what a living one is writing is none of it."""
    folders = {folder for at in (runs_dir, runs_dir / REPRODUCTIONS) for folder in run_folders(at)}
    found: list[Leftover] = []
    for stage in stages(runs_dir):
        over = is_abandoned(stage)
        run = next((folder for folder in stage.parents if folder in folders), None)
        if over is None and run is not None:
            # A checkpoint's stage tells no process: several write it, for the run whose lock one of them has.
            if lock.is_held(run):
                continue
            over = True if stage.match("checkpoints/step-*.tmp") else None
        if over is not False:
            with suppress(OSError):  # It may have got its name meanwhile.
                found.append(Leftover(stage, size_of(stage), over is True))
    return found


def remove_leftovers(runs_dir: Path) -> tuple[list[Leftover], list[Leftover]]:
    """Removes what processes left that have ended; returns that, and what stays."""
    found = leftovers(runs_dir)
    gone = [one for one in found if one.is_over and remove(one.path)]
    with suppress(OSError):
        (runs_dir / TRASH).rmdir()
    return gone, [one for one in found if one not in gone]


def _taken(one: Input, going: dict[Path, RunRecord]) -> RunRecord | None:
    """The run that an input was taken from, where it is one of these; a folder that was moved, by its id."""
    folder = Path(one.details.get("run_dir", ""))
    if "run_dir" in one.details and folder.exists():
        return going.get(folder.resolve())
    named = one.details.get("run")
    return next((record for at, record in going.items() if "/".join(at.parts[-2:]) == named), None)


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    return ((path, value) for path, value in read_stored(folder).fields.items() if isinstance(value, str))

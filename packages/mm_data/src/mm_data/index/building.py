"""From an opened source to an index on disk, which is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import av

from mm_config.content import Part, differences
from mm_config.durable import discard, staged_file, staged_folder
from mm_config.schema import Problem, UserError
from mm_data.bad import file_state
from mm_data.index.journal import Opened, measured
from mm_data.index.listed import LeftOut, Listed, Source
from mm_data.index.pieces import Cutting
from mm_data.index.report import stats_of, tell_differences
from mm_data.index.samples import Mismatch, Sample, samples_of
from mm_data.index.table import HEAD, STATS, Head, IndexedRecords, read_stats
from mm_data.index.writing import head_of, parts_of, write_index, write_rows
from mm_data.manifest import LONE_SURROGATE

JOURNAL = "measured.jsonl"
_MOST_WORKERS = 32


@attrs.frozen
class Built:
    """An index that was written, or was there already."""

    folder: Path
    """Where it lies."""
    head: Head
    """What it is."""
    stats: dict[str, Any]
    """Counts, as `stats.json` has them."""
    left_out: tuple[LeftOut, ...]
    """Clips that are in no row, and why."""
    mismatches: tuple[Mismatch, ...]
    """Values that the source declares otherwise than they were measured."""
    changes: tuple[str, ...] | None
    """What came, went and differs since the index that was there, clip by clip; None where none was."""

    @property
    def spec_line(self) -> str:
        """The spec of this index, to paste."""
        return f'IndexSpec(name="{self.head.name}", digest="{self.head.digest}")'


def build(
    source: Source,
    folder: Path,
    *,
    name: str,
    opened: Opened,
    cutting: Cutting | None = None,
    state_of: Callable[[Listed], str] = lambda one: file_state(one.path),
    workers: int | None = None,
    isolated: bool = False,
    replace: bool = False,
) -> Built:
    """Measures the clips of a source and writes their index.

    What was measured is kept beside the folder until it is written, and then in it, so that no file is
    measured twice. An index that is there is left as it is where it has the same rows.

    Args:
        source: What lists the clips; it is read here.
        folder: Where the index is to lie.
        name: Its logical name.
        opened: What opens a clip, or raises BadClip.
        cutting: Which samples are made of long clips; None makes one.
        state_of: What tells that a clip's file is another than it was.
        workers: Threads that measure; None is as many as processors.
        isolated: Whether files are looked at in processes with limits.
        replace: Whether an index with other rows may take the place of the one that is there.

    Raises:
        UserError: The source is wrong, no clip can be used, something else lies in the place, or an index
            with other rows does: its differences are told first.
    """
    folder = folder.absolute()
    before = _before(folder)
    entries = [_named(one) for one in source.listed]
    listed = [one for one in entries if isinstance(one, Listed)]
    journal = folder.with_name(f"{folder.name}.{JOURNAL}")
    found = measured(
        listed,
        opened,
        journal,
        earlier=[folder / JOURNAL],
        state_of=state_of,
        workers=workers or min(os.cpu_count() or 1, _MOST_WORKERS),
        isolated=isolated,
    )
    cutting = cutting or Cutting()
    outcomes = [
        outcome
        for one in entries
        for outcome in ([one] if isinstance(one, LeftOut) else samples_of(one, found, cutting))
    ]
    samples = [one for one in outcomes if isinstance(one, Sample)]
    left_out = tuple(one for one in outcomes if isinstance(one, LeftOut))
    mismatches = tuple(one for one in outcomes if isinstance(one, Mismatch))
    stats = stats_of(samples, left_out, mismatches)
    if not samples:
        reasons = [f"{count}: {why}" for why, count in stats["left_out"]["reasons"].items()]
        message = "; ".join(["holds no clip that can be used", *reasons[:8]])
        raise UserError(Problem(str(source.path), message))
    details = {"source": {"kind": source.kind, "path": str(source.path)}, **_made(cutting)}
    parts = parts_of(samples)
    head = head_of(name, parts, root=source.root, folder=folder.resolve(), details=details)
    changes = None if before is None else _changes(before, head, parts)
    built = Built(folder, head, stats, left_out, mismatches, changes)
    if changes == ():
        if read_stats(folder) != json.loads(json.dumps(stats)):
            _write_lists(built, folder, journal)
        journal.unlink(missing_ok=True)
        return built
    if changes and not replace:
        tell_differences(changes)
        message = (
            "holds an index of other content, which stays as it is; --replace puts this one in its place"
        )
        raise UserError(Problem(str(folder), f"{message}, or name another folder"))
    _write(built, samples, source.root, journal)
    return built


def _named(one: Listed | LeftOut) -> Listed | LeftOut:
    """What is listed; a clip whose name no table can hold is left out."""
    if isinstance(one, Listed) and LONE_SURROGATE.search(f"{one.name} {one.path}"):
        return LeftOut(one.name, one.place, "its name is no text in Unicode; rename it")
    return one


def _made(cutting: Cutting) -> dict[str, Any]:
    """How an index was made: its pieces, and the libraries that measured."""
    pieces = {
        "pieces": cutting.pieces.value,
        "piece_frames": cutting.frames,
        "piece_stride": cutting.stride,
        "piece_count": cutting.count,
    }
    libraries = {name: ".".join(map(str, one)) for name, one in av.library_versions.items()}
    return {**pieces, "libraries": libraries}


def _before(folder: Path) -> IndexedRecords | None:
    """The index that is there. Raises UserError where something else is."""
    if not os.path.lexists(folder):
        return None
    if not (folder / HEAD).is_file():
        raise UserError(Problem(str(folder), "is there and is no index; name a folder that isn't there yet"))
    return IndexedRecords(folder)


def _changes(before: IndexedRecords, head: Head, parts: Sequence[Part]) -> tuple[str, ...]:
    """What is not as in the index that is there; none where the rows are the same."""
    old = before.parts()
    if old == list(parts) and attrs.evolve(before.head, details={}) == attrs.evolve(head, details={}):
        return ()
    lines = tuple(differences(old, parts))
    return lines or ("the clips are the same, but their names, their order or their folder are others",)


def _write(built: Built, samples: Sequence[Sample], root: Path, journal: Path) -> None:
    """Writes all files of an index beside its place, and moves them there together."""
    with staged_folder(built.folder) as stage:
        _write_lists(built, stage, journal)
        write_index(stage, built.head, samples, root)
        if built.changes is not None:
            discard(built.folder)
    journal.unlink(missing_ok=True)


def _write_lists(built: Built, folder: Path, journal: Path) -> None:
    """Writes what is said beside the rows of an index, which may be new while the rows are as they were."""
    with staged_file(folder / "left_out.jsonl") as stage:
        write_rows(stage, built.left_out)
    with staged_file(folder / "mismatches.jsonl") as stage:
        write_rows(stage, built.mismatches)
    with staged_file(folder / JOURNAL) as stage:
        shutil.copyfile(journal, stage)
    with staged_file(folder / STATS) as stage:
        stage.write_text(json.dumps(built.stats, indent=1) + "\n", encoding="utf-8")

"""From what a person names, a path or a spec, to its index."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, TextIO

from mm_config.console import aside, set_by_torchrun
from mm_config.options import Locations
from mm_config.rules import counted
from mm_config.schema import Problem, UserError, concerning
from mm_config.specs import FolderSpec, Pieces
from mm_data import remote
from mm_data.bad import file_state
from mm_data.index.building import Built, build
from mm_data.index.listed import Listed
from mm_data.index.pieces import Cutting
from mm_data.index.sources.files import roots_of
from mm_data.index.sources.opening import Reading, is_file, open_source
from mm_data.index.table import HEAD, IndexedRecords
from mm_data.media import open_media


def make_index(
    source: str,
    folder: Path,
    *,
    name: str,
    reading: Reading,
    cutting: Cutting | None = None,
    workers: int | None = None,
    replace: bool = False,
) -> tuple[Built, tuple[str, ...], tuple[str, ...]]:
    """Lists and measures what a path or url holds, and writes its index.

    Args:
        source: The path or url.
        folder: Where the index is to lie.
        name: Its logical name.
        reading: How the source is read.
        cutting: Which samples are made of long clips; None does what the source says, else makes one.
        workers: Threads that measure; None is as many as processors.
        replace: Whether an index with other rows may take the place of the one that is there.

    Returns:
        What was written; lines for a `DataSpec` that do what the source asks; and what else is to be known.

    Raises:
        UserError: The source is wrong or holds nothing that can be used, or something lies in the place.
    """
    found = open_source(source, reading)
    if folder.absolute().resolve().is_relative_to(Path(found.path).resolve()):
        raise UserError(Problem(str(folder), f"lies inside {found.path}, which would list it; name another"))
    place = folder.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place.with_name(f".{place.name}.lock")):
        built = build(
            found,
            folder,
            name=name,
            opened=partial(_opened, reading=reading),
            cutting=cutting or found.cutting,
            state_of=_states(source, reading),
            workers=workers,
            isolated=reading.isolated,
            replace=replace,
        )
    return built, found.spec_lines, found.notes


def index_of_folder(
    spec: FolderSpec, source: str, cache_dir: Path, locations: Locations, *, isolated: bool = False
) -> IndexedRecords:
    """The index of what a spec names, below `cache_dir`: files that are new or changed are measured.

    Of a training's ranks the first makes it, and the others open it afterwards.

    Raises:
        UserError: As `make_index`.
    """
    options = (
        spec.path_column,
        spec.caption_column,
        spec.pieces.value,
        spec.piece_frames,
        spec.piece_stride,
        spec.piece_count,
    )
    key = hashlib.sha256(json.dumps([source, spec.name, *options]).encode()).hexdigest()[:16]
    folder = cache_dir / "indexes" / key
    roots = roots_of(locations)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with concerning("spec.data.dataset"):
        cutting = cutting_of(spec.pieces, spec.piece_frames, spec.piece_stride, spec.piece_count)
    with _alone(folder.with_suffix(".lock")):
        if set_by_torchrun("RANK", 0) == 0 or not (folder / HEAD).is_file():
            built, _, _ = make_index(
                source,
                folder,
                name=spec.name,
                reading=Reading(spec.path_column, spec.caption_column, roots, spec.remote, isolated),
                cutting=cutting,
                replace=True,
            )
            reasons = built.stats["left_out"]["reasons"]
            aside(*(f"{source}: {count:,} left out: {reason}" for reason, count in reasons.items()))
            if built.changes:
                changes = counted(len(built.changes), "change")
                aside(f"{source}: {changes} since it was indexed: {built.changes[0]}")
    return IndexedRecords(folder, roots=roots)


def cutting_of(pieces: Pieces, frames: int | None, stride: int | None, count: int | None) -> Cutting | None:
    """How a person wants clips cut; None where nothing is said, so that the source may.

    Raises:
        UserError: A number is missing, or is one that these pieces don't have.
    """
    said = (pieces, frames, stride, count) != (Pieces.WHOLE, None, None, None)
    return Cutting(pieces, frames, stride, count) if said else None


def _opened(one: Listed, reading: Reading) -> BinaryIO:
    return open_media(one.path, one.part, one.url, reading.remote)


def _states(source: str, reading: Reading) -> Callable[[Listed], str]:
    """What tells that a clip's file is another than it was.

    Objects below a source over the network are told by its list, others are asked for, shards once.
    """
    remote_folder = f"{source.rstrip('/')}/" if "://" in source and not is_file(source) else ""
    listed = remote.states_below(source, reading.remote) if remote_folder else {}

    @cache
    def state(path: Path, url: str | None) -> str:
        if url is None:
            return file_state(path)
        if remote_folder and url.startswith(remote_folder):
            return listed.get(url.removeprefix(remote_folder), "")
        try:
            return remote.state_of(url, reading.remote)
        except OSError:
            return ""

    return lambda one: state(one.path, one.url)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Others that make the same index wait; where files can't be locked they don't."""
    held = _locked(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        held.close()


def _locked(file: Path) -> TextIO:
    """A file that is locked and still has its name: whoever held it before has removed its own."""
    while True:
        held = file.open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            aside(f"{file}: another process makes this index; this one goes on when that has ended")
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:
            return held
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held.fileno()), file.stat()):
                return held
        held.close()

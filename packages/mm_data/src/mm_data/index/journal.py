"""Every file measured once, by several threads; a journal keeps what was found, so that a kill costs nothing.

A line of the journal names a file, its state (size and times of change), and what was found. Where the state
or a library that measures is another, the line counts for nothing, and the file is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO, TypeAlias

import attrs
import av

from mm_config.console import progress
from mm_config.content import sha256_of_files
from mm_config.schema import Problem, UserError
from mm_data.bad import BadClip, Fault, file_state
from mm_data.index.listed import Listed
from mm_data.index.measuring import Media, as_json, from_json, measure
from mm_data.manifest import capped
from mm_data.video.limits import failure, is_short

_TOLD = 100
"""Files between two lines on a terminal that can't redraw, at least."""
REVISION = 1
"""Raised where `measure` finds something else in the same file."""
_CHUNK_FILES, _CHUNK_BYTES, _BLOCK_BYTES = 64, 2**30, 2**20

Key: TypeAlias = tuple[str, int, int]
"""Path or url, offset and length; zeros where the file is the clip's own."""
Found: TypeAlias = Media | BadClip
Opened: TypeAlias = Callable[[Listed], AbstractContextManager[BinaryIO]]


@attrs.frozen
class Asked:
    """A file that is to be measured."""

    key: Key
    """What it is."""
    listed: Listed
    """The first clip that lies in it."""
    state: str
    """As `file_state` says it; empty where there is no file."""


def key_of(listed: Listed) -> Key:
    """The file, or the part of a shard, that a clip is."""
    offset, length = listed.part or (0, 0)
    return listed.url or str(listed.path), offset, length


def measured(
    listed: Iterable[Listed],
    opened: Opened,
    journal: Path,
    *,
    earlier: Sequence[Path] = (),
    state_of: Callable[[Listed], str] = lambda one: file_state(one.path),
    workers: int,
    isolated: bool = False,
) -> dict[Key, Found]:
    """Measures the files of clips, each once; what no clip is at fault for is tried twice.

    Args:
        listed: Clips, of which several may be one file's.
        opened: What opens a clip's file, or raises BadClip.
        journal: Where what is found is kept as it is found; a file that is gone on with.
        earlier: Further journals that know files.
        state_of: What tells that a clip's file is another than it was.
        workers: Threads.
        isolated: Whether files are looked at in processes with limits.

    Raises:
        UserError: The machine couldn't read some files, whatever is in them: all of them.
    """
    all_asked = {key_of(one): one for one in reversed(list(listed))}
    asked = [Asked(key, one, state_of(one)) for key, one in reversed(all_asked.items())]
    kept: dict[tuple[Key, str], Found] = {}
    for file in (*earlier, journal):
        kept |= _kept(file)
    found = {one.key: kept[one.key, one.state] for one in asked if (one.key, one.state) in kept}
    left = [one for one in asked if one.key not in found]
    with (
        _appending(journal, found, asked) as file,
        ThreadPoolExecutor(workers) as pool,
        progress("measure files", len(asked), "file", max(len(asked) // 20, _TOLD), len(found)) as bar,
    ):
        tried = partial(_tried, opened=opened, state_of=state_of, isolated=isolated)
        again: list[Asked] = []
        for one, what in _all_tried(left, tried, pool):
            if isinstance(what, BadClip) and what.fault is not Fault.CLIP:
                again.append(one)
                continue
            found[one.key] = what
            _keep(file, one, what)
            bar.advance()
        problems: list[Problem] = []
        for one in again:
            found[one.key] = what = tried((one, None))
            if isinstance(what, BadClip) and (what.fault is Fault.MACHINE or is_short(0)):
                problems.append(Problem(one.listed.name, f"can't be read, by no fault of its own: {what}"))
            else:
                _keep(file, one, what)
            bar.advance()
    if problems:
        problems = [
            *capped(problems, "index"),
            Problem(str(journal), "keeps what was measured; run it again"),
        ]
        raise UserError(problems)
    return found


def _all_tried(
    asked: Sequence[Asked], tried: Callable[[tuple[Asked, str | None]], Found], pool: ThreadPoolExecutor
) -> Iterator[tuple[Asked, Found]]:
    """What is found in each file, as it is found; the bytes of the next ones are read meanwhile."""
    with ThreadPoolExecutor(1) as hashing:
        chunks = list(_chunks(asked))
        digests = [hashing.submit(_digests, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            digests += [hashing.submit(_digests, later) for later in chunks[number + 1 : number + 2]]
            pairs = zip(chunk, digests[number].result(), strict=True)
            futures = {pool.submit(tried, pair): pair[0] for pair in pairs}
            for future in as_completed(futures):
                yield futures[future], future.result()


def _tried(
    one: tuple[Asked, str | None], *, opened: Opened, state_of: Callable[[Listed], str], isolated: bool
) -> Found:
    asked, digest = one
    try:
        with opened(asked.listed) as file:
            sha256 = digest or _sha256(file)
            size = file.seek(0, 2)
            media = measure(file, sha256=sha256, size=size, state=asked.state, isolated=isolated)
    except Exception as error:
        return failure(error)
    if state_of(asked.listed) != asked.state:
        return BadClip("open", "it changes while it is read", Fault.MACHINE)
    return media


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for block in iter(partial(file.read, _BLOCK_BYTES), b""):
        digest.update(block)
    return digest.hexdigest()


def _chunks(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Files whose bytes are read before they are measured: so few that they are still in memory then."""
    chunk: list[Asked] = []
    held = 0
    for one in asked:
        size = int(one.state.partition(" ")[0] or 0) if one.listed.url is None else 0
        if chunk and (len(chunk) == _CHUNK_FILES or held + size > _CHUNK_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(one)
        held += size
    if chunk:
        yield chunk


def _digests(chunk: Sequence[Asked]) -> list[str | None]:
    """The remembered sha256 of whole files; None of a part of a shard, of an object, and of a large file."""
    whole = [one for one in chunk if one.listed.url is None and one.listed.part is None and len(chunk) > 1]
    digests = sha256_of_files(one.listed.path for one in whole)
    known = {one.key: digest for one, digest in zip(whole, digests, strict=True)}
    return [known.get(one.key) for one in chunk]


def _head() -> str:
    versions = {name: list(version) for name, version in av.library_versions.items()}
    return json.dumps({"journal": REVISION, **versions})


def _kept(journal: Path) -> dict[tuple[Key, str], Found]:
    """What a journal knows; nothing where there is none, or other libraries wrote it."""
    found: dict[tuple[Key, str], Found] = {}
    try:
        with journal.open(encoding="utf-8", errors="replace") as lines:
            if next(lines, "").rstrip("\n") != _head():
                return {}
            for line in lines:
                if entry := _entry(line):
                    found[entry[0], entry[1]] = entry[2]
    except OSError:
        return {}
    return found


def _entry(line: str) -> tuple[Key, str, Found] | None:
    """A file, its state and what was found; None of a line that a kill cut off, or somebody edited."""
    try:
        (path, offset, length), state, what = json.loads(line)
        found = BadClip(*what) if isinstance(what, list) else from_json(what)
        entry = (str(path), int(offset), int(length)), str(state), found
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None
    return entry


def _appending(journal: Path, found: Mapping[Key, Found], asked: Sequence[Asked]) -> TextIO:
    """The journal, at whose end lines may be written: begun anew with what is known where it can't go on."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    if _kept(journal):
        file = journal.open("a", encoding="utf-8")
        file.write("\n")  # A kill may have cut off the last line.
        return file
    file = journal.open("w", encoding="utf-8")
    file.write(_head() + "\n")
    for one in asked:
        if one.key in found:
            _keep(file, one, found[one.key])
    return file


def _keep(file: TextIO, one: Asked, what: Found) -> None:
    if one.state:
        content = [what.stage, what.reason] if isinstance(what, BadClip) else as_json(what)
        file.write(json.dumps([one.key, one.state, content]) + "\n")
        file.flush()

"""The clips that can't be read: counted, listed once, and never so many that a run learns from leftovers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import attrs

from mm_config.durable import read_bytes
from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.bad import Bad, place_of, state_of
from mm_data.records import Record

ALWAYS_ALLOWED = 8
"""Bad clips a run bears however small its dataset is, unless the allowed share is 0."""
MOST_IN_A_ROW = 32
"""Clips that are tried for one place in a batch; where none can be read, something else is wrong."""
SHOWN_REASONS = 3


def allowed_bad(data: DataSpec, num_records: int) -> int:
    """How many different bad clips a run goes on with.

    The share of the dataset, but at least `ALWAYS_ALLOWED`, so that one bad file doesn't stop a run over
    fifty; never all clips; none where the share is 0; and no more than `max_bad_clips`.
    """
    if data.max_bad_share == 0:
        return 0
    by_share = min(max(int(data.max_bad_share * num_records), ALWAYS_ALLOWED), num_records - 1)
    return by_share if data.max_bad_clips is None else min(by_share, data.max_bad_clips)


class Quarantine:
    """The bad clips of one dataset met so far, in memory and in a JSON-lines file.

    Ranks, and later runs over the same dataset, may share the file. A line that a killed process left
    unfinished counts for nothing: its clip is found bad, and listed, again. So is a clip whose file changed
    after it was listed: it is tried again.
    """

    def __init__(self, path: Path | None, records: Sequence[Record], data: DataSpec) -> None:
        self.path = path
        """The file; None keeps the list in memory alone."""
        self.records = records
        """Clips of the dataset."""
        self.allowed = allowed_bad(data, len(records))
        """How many a run goes on with."""
        self._by_count = self.allowed == data.max_bad_clips
        self.clips: dict[int, Bad] = {}
        """By place in the dataset."""
        self._listed: dict[int, Bad] = {}
        self._read_to = 0
        self._look()
        self.changed = tuple(bad.path for index, bad in self._listed.items() if index not in self.clips)
        """Files that were bad and are others now."""

    def add(self, found: Iterable[Bad]) -> None:
        """Lists clips that are not listed yet.

        Raises:
            UserError: More clips are bad than `allowed`.
        """
        new = [bad for bad in found if bad.index not in self.clips]
        if not new:
            return
        self._look()
        self.clips.update((bad.index, bad) for bad in new)
        if self.path is not None:
            _append(self.path, [bad for bad in new if not _same(bad, self._listed.get(bad.index))])
        self.check()

    def check(self) -> None:
        """Raises UserError where more clips are bad than `allowed`."""
        if len(self.clips) <= self.allowed:
            return
        count = "all" if len(self.clips) == len(self.records) else str(len(self.clips))
        allowed = "1 is" if self.allowed == 1 else f"{self.allowed} are"
        unreadable = f"{count} of {counted(len(self.records), 'clip')} can't be read, {allowed} allowed"
        field = "spec.data.max_bad_clips" if self._by_count else "spec.data.max_bad_share"
        raise UserError(Problem(field, f"{unreadable}: {self._counted()}"))

    def told(self) -> str:
        """How many clips of how many were bad, and why, on any rank and in earlier runs that share the file;
        empty where none was."""
        self._look()
        if not self.clips:
            return ""
        clips = counted(len(self.records), "clip")
        return f"{len(self.clips)} of {clips} could not be read: {self._counted()}"

    def reasons(self) -> Counter[str]:
        """How many clips are bad for each reason."""
        return Counter(f"{bad.stage}: {bad.reason}" for bad in self.clips.values())

    def _look(self) -> None:
        """Takes what the file lists beyond what was read of it before; each line is held to its clip once.

        Raises:
            UserError: The file can't be read.
        """
        content = _content(self.path)
        new = _parsed(content[self._read_to if self._read_to <= len(content) else 0 :])
        self._listed |= new
        self._read_to = content.rfind(b"\n") + 1
        for index, bad in new.items():
            if index not in self.clips and _holds(bad, self.records):
                self.clips[index] = bad

    def _counted(self) -> str:
        common = self.reasons().most_common(SHOWN_REASONS)
        counted = "; ".join(f"{count} x {reason}" for reason, count in common)
        others = len(self.clips) - sum(count for _, count in common)
        more = f"; {others} x for other reasons" if others else ""
        return f"{counted}{more}" + (f"; all are listed in {self.path}" if self.path is not None else "")


def _holds(bad: Bad, records: Sequence[Record]) -> bool:
    """Whether a clip that is listed is still that one, and its file as it was."""
    if not 0 <= bad.index < len(records):
        return False
    record = records[bad.index]
    return (bad.path, bad.file) == (place_of(record), state_of(record))


def _same(bad: Bad, listed: Bad | None) -> bool:
    return listed is not None and (bad.path, bad.file) == (listed.path, listed.file)


def _append(path: Path, found: Iterable[Bad]) -> None:
    """Adds a line for each clip, all in one write, so that those of several ranks don't mix.

    Raises:
        UserError: The file can't be written.
    """
    lines = "".join(json.dumps(attrs.asdict(bad), ensure_ascii=False) + "\n" for bad in found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            file.write((lines if _ends_a_line(file) else f"\n{lines}").encode())
    except OSError as error:
        raise UserError(Problem(str(path), f"bad clips can't be listed: {error.strerror}")) from error


def _ends_a_line(file: BinaryIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    return file.read(1) in (b"", b"\n")


def _content(path: Path | None) -> bytes:
    """Raises UserError where the file can't be read."""
    if path is None or not os.path.lexists(path):
        return b""
    try:
        return read_bytes(path)
    except OSError as error:
        raise UserError(Problem(str(path), f"bad clips can't be read: {error.strerror}")) from error


def _parsed(content: bytes) -> dict[int, Bad]:
    listed: dict[int, Bad] = {}
    for line in content.split(b"\n"):
        # What is no JSON is a line that a killed process left unfinished.
        with suppress(ValueError, TypeError, RecursionError):
            bad = Bad(**json.loads(line))
            if type(bad.index) is int:
                listed[bad.index] = bad
    return listed

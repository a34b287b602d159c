"""Clips that can't be used, and whose fault that is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import attrs

from mm_data.records import Record


class Fault(StrEnum):
    """Whose fault it is that a clip can't be read."""

    CLIP = "clip"
    MACHINE = "machine"
    UNSURE = "unsure"
    """Memory or threads ran out: the machine has too little, or the clip asks for too much."""


class BadClip(ValueError):
    """A clip can't be used: raised by readers and loaders, never seen by the training loop."""

    def __init__(self, stage: str, reason: str, fault: Fault = Fault.CLIP) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.fault = fault


@attrs.frozen
class Bad:
    """One bad clip, as it is listed in the quarantine file."""

    index: int
    """Place in the dataset."""
    path: str
    """The file, or where the clip lies over the network."""
    stage: str
    """Where it failed: open, index, sample, decode."""
    reason: str
    """Why."""
    file: str = ""
    """The file's size and times of change when it was tried; empty where there was none."""


def place_of(record: Record) -> str:
    """The file of a clip, or where it lies over the network."""
    return record.url or str(record.path)


def state_of(record: Record) -> str:
    """`file_state` of a clip's file; empty over the network."""
    return "" if record.url is not None else file_state(record.path)


def file_state(path: Path) -> str:
    """What tells a file that was changed, also one that was replaced by another of the same size and age."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} bytes, {found.st_mtime_ns}, {found.st_ctime_ns}"

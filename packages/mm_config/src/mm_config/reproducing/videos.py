"""Generated videos, told apart by their encoded frames, and their score."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.runs.record import RESULT_FILE, read_json

_MEDIA = b"mdat"
_WIDE = 1
"""A box's 32-bit size that announces a 64-bit one behind the type; 0 says that the box goes to the end."""
_SHOWN_DIGITS = 12


def videos_of(run_dir: Path) -> dict[str, Path]:
    """The videos of a run folder by file name."""
    return {file.name: file for file in sorted((run_dir / "samples").glob("*.mp4"))}


def score_of(run_dir: Path) -> Mapping[str, Any]:
    """What the result says of each score; nothing where there is no result or nothing was measured."""
    file = run_dir / RESULT_FILE
    return (read_json(file).get("score") or {}) if file.is_file() else {}


def frames_of(videos: Mapping[str, Path], names: Collection[str]) -> dict[str, str]:
    """The start of the sha256 of the encoded frames of the videos that have these names."""
    return {name: frames_digest(file)[:_SHOWN_DIGITS] for name, file in videos.items() if name in names}


def frames_digest(path: Path) -> str:
    """sha256 over the media data of an mp4 file: its `mdat` boxes, ISO/IEC 14496-12 section 4.2.

    Beside the frames a file holds a comment with the spec's hash, which another schema of the spec changes
    while the pixels stay. What has no media data is hashed whole.
    """
    content = path.read_bytes()
    media = [content[start:end] for kind, start, end in _boxes(content) if kind == _MEDIA]
    return hashlib.sha256(b"".join(media) or content).hexdigest()


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type of each top-level box, and where its payload starts and ends."""
    at = 0
    while at + 8 <= len(content):
        size, kind, header = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8], 8
        if size == _WIDE:
            size, header = int.from_bytes(content[at + 8 : at + 16]), 16
        elif size == 0:
            size = len(content) - at
        if size < header:
            return
        yield kind, at + header, at + size
        at += size

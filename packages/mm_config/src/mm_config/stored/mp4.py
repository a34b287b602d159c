"""What an mp4 file says of itself, read from its boxes (ISO/IEC 14496-12 section 4.2): comment and frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mm_config.durable.reading import open_regular

_MEDIA = b"mdat"
_COMMENT = ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8))
"""The boxes that a comment lies in, from the outermost, each with the bytes before its content: version and
flags of `meta`; kind and language of `data`, as in https://developer.apple.com/documentation/quicktime-file-format."""
_WIDE = 1
"""A box's 32-bit size that announces a 64-bit one behind the type; 0 says that the box goes to the end."""
_CHUNK_BYTES = 1 << 20
_MAX_COMMENT_BYTES = 1 << 24


def comment_of(path: Path) -> str:
    """The comment tag of an mp4 file; empty where there is none, or where the file is no mp4.

    Raises:
        OSError: The file can't be read.
    """
    with open_regular(path) as file:
        start, end = 0, path.stat().st_size
        for kind, skipped in _COMMENT:
            found = next(((at, stop) for name, at, stop in _boxes(file, start, end) if name == kind), None)
            if found is None:
                return ""
            start, end = found[0] + skipped, found[1]
        file.seek(start)
        return file.read(min(max(end - start, 0), _MAX_COMMENT_BYTES)).decode("utf-8", "replace")


def is_video(path: Path) -> bool:
    """Whether a file is a whole mp4 file: has a description of its tracks, and their media.

    Raises:
        OSError: The file can't be read.
    """
    with open_regular(path) as file:
        return {_COMMENT[0][0], _MEDIA} <= {kind for kind, _, _ in _boxes(file, 0, path.stat().st_size)}


def frames_digest(path: Path) -> str:
    """sha256 over the media data of an mp4 file: its `mdat` boxes.

    Beside the frames a file holds a comment that names its run, which another run of the same spec changes
    while the pixels stay. What has no media data is hashed whole.

    Raises:
        OSError: The file can't be read.
    """
    digest, size = hashlib.sha256(), path.stat().st_size
    with open_regular(path) as file:
        media = [(start, end) for kind, start, end in _boxes(file, 0, size) if kind == _MEDIA]
        for start, end in media or [(0, size)]:
            file.seek(start)
            while (left := end - file.tell()) > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
    return digest.hexdigest()


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The type of each box in a part of a file, and where its content starts and ends."""
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size, kind, header = int.from_bytes(head[:4]), head[4:8], 8
        if size == _WIDE:
            size, header = int.from_bytes(head[8:]), 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            return
        yield kind, at + header, at + size
        at += size

"""How many samples an mp4 file declares, before FFmpeg makes a list of them.

A file of 2 KB can declare 80 million, of which FFmpeg makes 5 GB. What it declares stands in boxes: size,
name, content, some of which hold boxes (ISO/IEC 14496-12).
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from mm_data.bad import BadClip
from mm_data.video.limits import Watched

MAX_SAMPLES = 8_000_000
"""Of all streams of a file; 23 hours with two tracks of sound. FFmpeg takes about 60 bytes for each."""
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Boxes that say how many samples there are, and at which byte of their content."""
FOLDERS = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"udta", b"edts")
)
"""Boxes that hold boxes."""


def require_samples(file: BinaryIO | Watched) -> None:
    """Raises BadClip where an mp4 file declares more samples than are allowed; others have no boxes."""
    at, end, total = 0, file.seek(0, io.SEEK_END), 0
    while at + 8 <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))
            head = 16
        if name in FOLDERS:
            at += head
            continue
        if name in COUNTS:
            file.seek(COUNTS[name], io.SEEK_CUR)
            total += int.from_bytes(file.read(4), "big")
        if total > MAX_SAMPLES:
            raise BadClip("index", f"the file declares {total} samples, more than {MAX_SAMPLES}")
        if size < head:
            return
        at += size

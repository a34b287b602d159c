"""What a clip may cost at most, checked before decoding and while it lasts."""

from __future__ import annotations

import time
from typing import BinaryIO

import attrs
import numpy as np

from mm_data.bad import BadClip

MAX_PIXELS = 8192 * 4320
"""Of a picture."""
MAX_FRAMES = 2_000_000
"""Of a file: 23 hours at 24 frames per second."""
CLIP_SECONDS = 120.0
"""The longest pass over a file, or reading of a clip in a process of its own. Files of hours take seconds to
index; decoding 250 frames of 3840x2160 takes 25 s on one slow core."""

MOST_OF_A_REASON = 300
"""Characters of what a library says."""


def failure(error: Exception) -> BadClip:
    """The bad clip that a decoder's exception stands for: on damaged files they raise nearly anything."""
    if isinstance(error, BadClip):
        return error
    return BadClip("decode", f"{type(error).__name__}: {error}"[:MOST_OF_A_REASON])


def require_frames(frames: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises BadClip where what a reader returned is not uint8 of that shape."""
    if frames.shape != shape or frames.dtype != np.uint8:
        raise BadClip("decode", f"the reader returned {frames.dtype} {list(frames.shape)}")


@attrs.frozen
class Watched:
    """A file that FFmpeg reads: reading it fails once the time is over, so that no demuxer runs for ever."""

    file: BinaryIO
    """The opened file."""
    until: float
    """By `time.monotonic`."""

    def read(self, size: int) -> bytes:
        """The next bytes. Raises BadClip where the time is over."""
        self.check()
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to an offset. Raises BadClip where the time is over."""
        self.check()
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The offset."""
        return self.file.tell()

    def check(self) -> None:
        """Raises BadClip where the time is over."""
        if time.monotonic() > self.until:
            raise BadClip("decode", f"reading took longer than {CLIP_SECONDS:g} s")

"""What a clip may cost at most, checked before decoding and while it lasts."""

from __future__ import annotations

import errno
import mmap
import time
from threading import Thread
from typing import BinaryIO

import attrs
import numpy as np
from av.error import FFmpegError

from mm_data.bad import BadClip, Fault

MAX_PIXELS = 8192 * 4320
"""Of a picture."""
MAX_BYTES = 1 << 36
"""Of a file or a part of a shard: 69 GB, two hours and a half at 60 Mbit/s."""
MAX_FRAMES = 2_000_000
"""Of a file: 23 hours at 24 frames per second."""
CLIP_SECONDS = 120.0
"""The longest pass over a file, or reading of a clip in a process of its own. Files of hours take seconds to
index; decoding 250 frames of 3840x2160 takes 25 s on one slow core."""

ROOM = 2**30
"""Bytes of address space that must be free, besides those of the frames, before a clip is called bad."""

MOST_OF_A_REASON = 300
"""Characters of what a library says."""

_MACHINE = frozenset(
    (
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.EREMOTEIO),
        *(errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTDOWN),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS),
    )
)
"""What the system says where no file can be read, or not this one, whatever is in it."""


def failure(error: Exception) -> BadClip:
    """The bad clip that a decoder's exception stands for: on damaged files they raise nearly anything."""
    if isinstance(error, BadClip):
        return error
    return BadClip("decode", f"{type(error).__name__}: {error}"[:MOST_OF_A_REASON], fault_of(error))


def fault_of(error: Exception) -> Fault:
    """Whose fault an error of a decoder or of the system is.

    FFmpeg says EIO of damaged files too, and ENOMEM where one asks for too much.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return Fault.UNSURE
    if isinstance(error, FFmpegError):
        return Fault.UNSURE if number in (errno.ENOMEM, errno.EAGAIN) else Fault.CLIP
    return Fault.MACHINE if isinstance(error, OSError) and number in _MACHINE else Fault.CLIP


def is_short(frames: int) -> bool:
    """Whether too little memory or too few threads are left to tell a bad clip from a good one.

    Args:
        frames: Bytes of a clip's decoded frames, which are held twice while they are put together.
    """
    try:
        mmap.mmap(-1, ROOM + 2 * frames, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        thread = Thread(target=int)
        thread.start()
        thread.join()
    except (OSError, MemoryError, RuntimeError):
        return True
    return False


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
    errors: list[OSError] = attrs.field(factory=list[OSError])
    """Of the system's, which FFmpeg takes for the end of the file."""

    def read(self, size: int) -> bytes:
        """The next bytes. Raises BadClip where the time is over."""
        self.check()
        try:
            return self.file.read(size)
        except OSError as error:
            self.errors.append(error)
            raise

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

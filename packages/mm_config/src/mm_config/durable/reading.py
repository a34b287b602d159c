"""Files that somebody else made, opened by kind and size: a pipe or a device would block or never end."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 2**28
"""Of a file that is read whole: far more than any text of ours, far less than memory."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_regular(path: Path) -> None:
    """Raises OSError where a path, its links followed, is no regular file; nothing is opened."""
    mode = path.stat().st_mode
    if kind := next((name for is_kind, name in _KINDS if is_kind(mode)), None):
        raise OSError(errno.EINVAL, f"it is {kind}, no regular file", str(path))


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading its bytes. Raises OSError where it is none or can't be opened."""
    require_regular(path)
    return path.open("rb")


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """All bytes of a regular file. Raises OSError where it can't be read, or has more than `limit`."""
    with open_regular(path) as file:
        if path.stat().st_size > limit:
            size = f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"
            raise OSError(errno.EFBIG, f"it is larger than {size}, the most that is read", str(path))
        return file.read()

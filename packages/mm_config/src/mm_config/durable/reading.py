"""Files that anybody may have put there: opened by kind and size, found where they lie inside."""

from __future__ import annotations

import errno
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath

MOST_BYTES = 2**28
"""Of a file that is read whole: far more than any text of ours, far less than memory."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_regular(path: Path) -> None:
    """Raises OSError where a path, its links followed, is a pipe or a device, which would block or never end,
    or anything else but a file; nothing is opened."""
    mode = path.stat().st_mode
    if kind := next((name for is_kind, name in _KINDS if is_kind(mode)), None):
        raise OSError(errno.EINVAL, f"it is {kind}, no file", str(path))


def open_regular(path: Path) -> BufferedReader:
    """A regular file, open for reading its bytes. Raises OSError where it is none or can't be opened."""
    require_regular(path)
    return path.open("rb")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a regular file. Raises OSError where it can't be read, or has more than `most`."""
    with open_regular(path) as file:
        if path.stat().st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        return file.read()


def outside(name: str, folder: Path, *, follow: bool = True) -> str | None:
    """Why a name that a file or a spec gives leads out of a folder, or can't be told; None where it doesn't.

    Args:
        name: A path relative to the folder, with forward slashes.
        folder: Where it has to stay.
        follow: Whether links count too; not where a person made the folder, such as a cache of links.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name:
        return "not a path"
    if path.is_absolute():
        return "an absolute path"
    if ".." in path.parts:
        return "`..` is not allowed in a path"
    if "\\" in name:
        return "a backslash is not allowed in a path"
    try:
        if follow and not (folder / path).resolve().is_relative_to(folder.resolve()):
            return "a link that leads out of the folder"
    except OSError as error:
        return f"not a path: {error.strerror}"
    except RuntimeError:
        # What pathlib raises before Python 3.13.
        return "a link that leads to itself"
    return None

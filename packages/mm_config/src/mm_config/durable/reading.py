"""Files that anybody may have put there: read where they are plain and small, found where they lie inside."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

MOST_BYTES = 64 * 1024 * 1024
"""Of a JSON file, which is read whole; a result with 100,000 videos has about 40 MB."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It can't be read, is a folder, a pipe or a device, which may never end, or has more bytes.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise OSError(errno.EINVAL, f"it is {kind}, no file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1) if found.st_size <= most else b""
        if max(found.st_size, len(content)) > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        return content
    finally:
        os.close(descriptor)


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

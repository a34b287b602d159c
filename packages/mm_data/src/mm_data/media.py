"""A clip's bytes, wherever they lie: a file, a part of a shard, an object over the network."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mm_config.durable import open_regular
from mm_data import remote
from mm_data.bad import BadClip
from mm_data.video.limits import fault_of


def open_media(
    path: Path, part: tuple[int, int] | None = None, url: str | None = None, allowed: Sequence[str] = ()
) -> BinaryIO:
    """The bytes of a clip, and of nothing else.

    Args:
        path: The regular file that is the clip or holds it.
        part: Offset and length in it; None takes all.
        url: Where it lies over the network, instead of the path.
        allowed: What may be read there, as `mm_data.remote` takes it.

    Raises:
        BadClip: There is no such file or part, or it may not be read.
        UserError: A library that reads it is not installed.
    """
    try:
        file = open_regular(path) if url is None else remote.open_remote(url, allowed)
        return file if part is None else _part(file, *part)
    except FileNotFoundError as error:
        raise BadClip("open", "no such file") from error
    except OSError as error:
        raise BadClip("open", error.strerror or str(error), fault_of(error)) from error
    except remote.Refused as error:
        raise BadClip("open", str(error)) from error


def _part(file: BinaryIO, offset: int, length: int) -> BinaryIO:
    if file.seek(0, io.SEEK_END) < offset + length:
        file.close()
        raise BadClip("open", "the shard is shorter than it was")
    return io.BufferedReader(_Part(file, offset, length), 2**16)


class _Part(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__()
        self.file, self.offset, self.length, self.at = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.offset + self.at)
        found = self.file.read(max(0, min(len(buffer), self.length - self.at)))
        buffer[: len(found)] = found
        self.at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        if start + offset < 0:
            raise ValueError("a place before the start of the part")
        self.at = start + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

"""Readers that do what decoders do on damaged clips; each is used in a process of its own."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mm_data.video.index import VideoIndex

GOOD, ABORT, SEGFAULT, HANG, MEMORY, RAISE, SMALL, EXIT, CHATTER, DISK, KILLED = range(11)
"""What the first wanted timestamp asks for."""
CORE_FILES, ADDRESS_SPACE, OWN_ID = range(20, 23)
CONNECT, START, WRITE = range(30, 33)


def read(file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int) -> np.ndarray:
    """Frames that all show the first byte of the file, unless something else is asked for."""
    what = wanted[0]
    if what == ABORT:
        os.abort()
    if what == SEGFAULT:
        ctypes.string_at(0)
    if what == HANG:
        time.sleep(600)
    if what == MEMORY:
        np.ones(1 << 40, np.uint8)
    if what == RAISE:
        raise AttributeError("'NoneType' object has no attribute 'name'" + " " * 10_000)
    if what == DISK:
        raise OSError(errno.EIO, "Input/output error")
    if what == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == EXIT:
        os._exit(3)
    if what == CHATTER:
        os.write(2, b"x" * (1 << 20))
    if what == SMALL:
        return np.zeros((height, width, 3), np.uint8)
    if what == CONNECT:
        socket.create_connection(("127.0.0.1", int(file.read())), timeout=5).close()
    if what == START:
        os.execv("/bin/true", ["true"])
    if what == WRITE:
        Path(os.fsdecode(file.read())).write_text("written")
    level: float = file.read(1)[0]
    if what == CORE_FILES:
        level = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if what == ADDRESS_SPACE:
        level = resource.getrlimit(resource.RLIMIT_AS)[1] >> 30
    return np.full((len(wanted), height, width, 3), level, np.uint8)


def pid(file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int) -> np.ndarray:
    """The process's id, in the bytes of one frame."""
    return np.frombuffer(os.getpid().to_bytes(3 * height * width, "little"), np.uint8).reshape(
        1, height, width, 3
    )

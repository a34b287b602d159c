"""The process in which `mm_data.video.isolated` has a reader read; it dies with its parent.

A request is a file and a shared memory, as descriptors, with JSON that says which frames are wanted. The
frames are left in the memory; the answer is a line of JSON: {}, or why the clip is bad.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import resource
import select
import socket
import struct
import sys
from fractions import Fraction
from threading import Thread
from typing import Any

import numpy as np

from mm_data.video.index import VideoIndex
from mm_data.video.limits import failure, require_frames
from mm_data.video.shown import Shown

HEADER = struct.Struct("<Q")
"""The bytes of JSON that follow."""
READY = b"ready\n"


def main(reader: str, descriptor: int, memory: int) -> None:
    """Answers requests until the parent closes its end.

    Args:
        reader: `module:function`, a reader.
        descriptor: Of the socket to the parent.
        memory: Bytes of address space that this process may have.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    module, _, function = reader.partition(":")
    read = getattr(importlib.import_module(module), function)
    parent = socket.socket(fileno=descriptor)
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    parent.sendall(READY)
    # From here on stderr is a decoder's, which may write without end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        header, descriptors, _, _ = socket.recv_fds(parent, HEADER.size, 2)
        if not header:
            return
        (size,) = HEADER.unpack(header)
        request = json.loads(parent.recv(size, socket.MSG_WAITALL))
        file, shared = descriptors
        parent.sendall(json.dumps(_answer(read, file, shared, **request)).encode() + b"\n")


def _answer(
    read: Any, file: int, shared: int, index: dict[str, Any], wanted: list[int], height: int, width: int
) -> dict[str, Any]:
    shape = (len(wanted), height, width, 3)
    try:
        with os.fdopen(file, "rb") as opened, os.fdopen(shared, "rb+") as memory:
            frames = read(opened, _index(**index), wanted, height=height, width=width)
            require_frames(frames, shape)
            mapped = mmap.mmap(memory.fileno(), 0)
            np.frombuffer(mapped, np.uint8).reshape(shape)[:] = frames
    except Exception as error:
        bad = failure(error)
        return {"stage": bad.stage, "reason": bad.reason, "fault": bad.fault}
    return {}


def _index(**fields: Any) -> VideoIndex:
    for name in ("time_base", "seconds"):
        fields[name] = Fraction(fields[name])
    for name in ("pts", "keyframes"):
        fields[name] = tuple(fields[name])
    fields["shown"] = Shown(**fields["shown"])
    return VideoIndex(**fields)


def _end_with(parent: socket.socket) -> None:
    """Ends this process when its parent is gone, also while a decoder hangs."""
    gone = select.poll()
    gone.register(parent, select.POLLHUP)
    gone.poll()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

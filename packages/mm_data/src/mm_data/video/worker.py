"""The process in which `mm_data.video.isolated` has a reader read; it dies with its parent.

A request is a file and a shared memory, as descriptors, with JSON that says which frames are wanted, or that
the index is. Frames are left in the memory; the answer is JSON: {}, the index, or why the clip is bad.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import select
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from threading import Thread
from typing import Any

import attrs
import numpy as np

from mm_data.video.confined import confine
from mm_data.video.index import VideoIndex, index_video
from mm_data.video.limits import failure, require_frames
from mm_data.video.shown import Shown

HEADER = struct.Struct("<Q")
"""The bytes of JSON that follow."""
READY = b"ready"
"""What begins the line that it sends first; the rest says why the network is still open."""


def main(reader: str, descriptor: int, memory: int) -> None:
    """Answers requests until the parent closes its end.

    Args:
        reader: `module:function`, a reader.
        descriptor: Of the socket to the parent.
        memory: Bytes of address space that this process may have.
    """
    module, _, function = reader.partition(":")
    read = getattr(importlib.import_module(module), function)
    parent = socket.socket(fileno=descriptor)
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    parent.sendall(READY + b" " + confine(memory).encode() + b"\n")
    # From here on stderr is a decoder's, which may write without end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        header, descriptors, _, _ = socket.recv_fds(parent, HEADER.size, 2)
        if not header:
            return
        (size,) = HEADER.unpack(header)
        request = json.loads(parent.recv(size, socket.MSG_WAITALL))
        file, shared = descriptors
        answer = json.dumps(_answer(read, file, shared, **request), default=str).encode()
        parent.sendall(HEADER.pack(len(answer)) + answer)


def _answer(
    read: Any,
    file: int,
    shared: int,
    index: dict[str, Any] | None,
    wanted: Sequence[int] = (),
    shape: Sequence[int] = (),
) -> dict[str, Any]:
    """What is found, or why nothing is."""
    try:
        with os.fdopen(file, "rb") as opened, os.fdopen(shared, "rb+") as memory:
            if index is None:
                return {"index": attrs.asdict(index_video(opened))}
            frames = read(opened, index_of(index), wanted, height=shape[1], width=shape[2])
            require_frames(frames, tuple(shape))
            mapped = mmap.mmap(memory.fileno(), 0)
            np.frombuffer(mapped, np.uint8).reshape(shape)[:] = frames
    except Exception as error:
        bad = failure(error)
        return {"stage": bad.stage, "reason": bad.reason, "fault": bad.fault}
    return {}


def index_of(fields: Mapping[str, Any]) -> VideoIndex:
    """An index out of JSON.

    Raises:
        TypeError, ValueError, LookupError: It is none.
    """
    times = {name: Fraction(fields[name]) for name in ("time_base", "seconds")}
    pts = {name: tuple(map(int, fields[name])) for name in ("pts", "keyframes")}
    return VideoIndex(**{**fields, **times, **pts, "shown": Shown(**fields["shown"])})


def _end_with(parent: socket.socket) -> None:
    """Ends this process when its parent is gone, also while a decoder hangs."""
    gone = select.poll()
    gone.register(parent, select.POLLHUP)
    gone.poll()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

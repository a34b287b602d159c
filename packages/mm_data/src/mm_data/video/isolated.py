"""A reader in a process of its own, so that what kills a decoder costs one clip.

The process has limits on time and memory, no network where the kernel has seccomp, and leaves no file. It
opens nothing: it is given an opened file, and it leaves frames in memory that this process made, as plain
bytes.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

import attrs
import numpy as np

from mm_config.schema import Problem, UserError
from mm_data.bad import BadClip, Fault
from mm_data.video.index import VideoIndex
from mm_data.video.limits import CLIP_SECONDS, fault_of
from mm_data.video.worker import HEADER, READY, index_of

MEMORY = 8 << 30
"""Bytes of address space of a process that reads. decord keeps a whole file's frames: 1.5 GB for 10 s of
1920x1080."""
START_SECONDS = 60.0
MOST_LINE = 4096
"""Bytes of a line."""
MOST_ANSWER = 2**27
"""Bytes. The timestamps of 2 million frames are 40 MB."""
MOST_COPIED = 2**31
"""Bytes of a clip that is no file of its own, and is copied for the process."""


@attrs.frozen
class _Worker:
    """A process that reads."""

    process: subprocess.Popen[bytes]
    """The process."""
    socket: socket.socket
    """To it."""

    def end(self) -> int:
        """Its exit status, minus the number of the signal that ended it; what still runs is killed."""
        self.socket.close()
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Isolated:
    """A reader like `read_frames`, for several threads; each has a process while it reads.

    A process that has read a clip reads the next; one that dies or takes too long is replaced.
    """

    def __init__(
        self, reader: str, seconds: float = CLIP_SECONDS, memory: int = MEMORY, *, offline: bool = False
    ) -> None:
        """
        Args:
            reader: `module:function`, what reads in the process.
            seconds: The longest time for one clip.
            memory: Bytes of address space of a process.
            offline: Whether it must have no network; else it may have where the kernel can't take it.
        """
        self.reader = reader
        self.offline = offline
        self.seconds = seconds
        self.memory = memory
        self._idle: list[_Worker] = []
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._idle.clear)

    def __call__(
        self, file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
    ) -> np.ndarray:
        """The frames with the wanted timestamps, uint8 RGB `[len(wanted), height, width, 3]`.

        Raises:
            BadClip: The reader raised it or anything else, or its process died or took too long.
            OSError: The system has no memory, descriptors or processes left.
            UserError: The process can't be started.
        """
        shape = (len(wanted), height, width, 3)
        request = {"index": attrs.asdict(index), "wanted": list(wanted), "shape": shape}
        return self._asked(file, request, shape)[0]

    def index(self, file: BinaryIO) -> VideoIndex:
        """What `index_video` finds in the process.

        Raises:
            BadClip, OSError, UserError: As reading frames does.
        """
        return index_of(self._asked(file, {"index": None}, (1,))[1]["index"])

    def _asked(
        self, file: BinaryIO, request: dict[str, Any], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The frames, uint8 of that shape, and the rest of the answer."""
        worker = self._taken() or self._start()
        try:
            frames, answer = self._ask(worker, file, request, shape)
            bad = (
                BadClip(str(answer["stage"]), str(answer["reason"]), Fault(answer["fault"]))
                if ("stage" in answer)
                else None
            )
        except TimeoutError:
            worker.process.kill()
            worker.end()
            raise BadClip("decode", f"reading took longer than {self.seconds:g} s") from None
        except BadClip:
            worker.end()
            raise
        except (OSError, ValueError, TypeError, LookupError) as error:
            status = worker.end()
            if fault_of(error) is not Fault.CLIP:
                raise
            # The kernel kills what takes the last memory, which need not be this clip's doing.
            fault = Fault.UNSURE if status == -signal.SIGKILL else Fault.CLIP
            raise BadClip("decode", _how_it_ended(status), fault) from error
        self._idle.append(worker)
        if bad is not None:
            raise bad
        return frames, answer

    def close(self) -> None:
        """Ends the processes that wait."""
        while (worker := self._taken()) is not None:
            worker.end()

    def _taken(self) -> _Worker | None:
        """A process that waits, and lives; None where there is none."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return None
            if worker.process.poll() is None:
                return worker
            worker.end()

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.settimeout(START_SECONDS)
        with theirs:
            arguments = [self.reader, str(theirs.fileno()), str(self.memory)]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mm_data.video.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # So that Ctrl-C is this process's to answer.
            )
        worker = _Worker(process, ours)
        assert process.stderr is not None
        with process.stderr as said:
            try:
                ready = _line(ours, time.monotonic() + START_SECONDS)
            except OSError:
                ready = b""
            if not ready.startswith(READY):
                process.kill()
                worker.end()
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise UserError(f"the process in which {self.reader} reads clips can't be started: {last}")
        if self.offline and (why := ready.removeprefix(READY).decode().strip()):
            worker.process.kill()
            worker.end()
            message = f"can't be held to: its processes would have network, for {why}"
            raise UserError(Problem("spec.data.isolated", message))
        return worker

    def _ask(
        self, worker: _Worker, file: BinaryIO, request: dict[str, Any], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The frames and the answer.

        Raises:
            BadClip: The clip can't be handed over.
            OSError, ValueError, TypeError, LookupError: The process ended, or answered with anything else.
        """
        until = time.monotonic() + self.seconds
        content = json.dumps(request, default=str).encode()
        memory = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, int(np.prod(shape)))
            # A process that shrank it would end this one with SIGBUS.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            mapped = mmap.mmap(memory, 0)
            file.seek(0)
            with _as_a_file(file) as opened:
                worker.socket.settimeout(self.seconds)
                socket.send_fds(worker.socket, [HEADER.pack(len(content))], [opened, memory])
                worker.socket.sendall(content)
                (size,) = HEADER.unpack(_received(worker.socket, HEADER.size, until))
                if size > MOST_ANSWER:
                    raise ConnectionError
                answer = json.loads(_received(worker.socket, size, until))
        finally:
            os.close(memory)
        return np.frombuffer(mapped, np.uint8).reshape(shape), answer


@contextmanager
def _as_a_file(file: BinaryIO) -> Iterator[int]:
    """A descriptor of a clip's bytes: its own, or that of a copy of a part of a shard or a remote object."""
    try:
        descriptor = file.fileno()
    except OSError:
        with open(os.memfd_create("clip", os.MFD_CLOEXEC), "w+b", buffering=0) as copy:
            size = 0
            while part := file.read(2**20):
                size += copy.write(part)
                if size > MOST_COPIED:
                    raise BadClip(
                        "open", f"more than {MOST_COPIED} bytes of a shard or a remote object"
                    ) from None
            copy.seek(0)
            yield copy.fileno()
    else:
        yield descriptor


def _received(worker: socket.socket, size: int, until: float) -> bytes:
    """That many bytes of an answer.

    Raises:
        TimeoutError: They aren't there in time.
        ConnectionError: The worker has closed its end.
    """
    content = bytearray()
    while len(content) < size:
        worker.settimeout(max(until - time.monotonic(), 1e-3))
        part = worker.recv(min(size - len(content), 2**20))
        if not part:
            raise ConnectionError
        content += part
    return bytes(content)


def _line(worker: socket.socket, until: float) -> bytes:
    """What a worker sends up to the end of a line. Raises as `_received` does."""
    line = b""
    while not line.endswith(b"\n") and len(line) < MOST_LINE:
        line += _received(worker, 1, until)
    return line


def _how_it_ended(status: int) -> str:
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"the decoder's process ended {how}"


@cache
def isolated(reader: str, offline: bool = False) -> Isolated:
    """The one isolated reader of a name, whose processes all threads share."""
    return Isolated(reader, offline=offline)

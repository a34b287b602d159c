"""A reader in a process of its own, so that what kills a decoder costs one clip.

The process has limits on time and memory and leaves no core file. It opens nothing: it is given an opened
file, and it leaves frames in memory that this process made, as plain bytes.
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
from collections.abc import Sequence
from functools import cache
from typing import Any, BinaryIO

import attrs
import numpy as np

from mm_config.schema import UserError
from mm_data.bad import BadClip, Fault
from mm_data.video.index import VideoIndex
from mm_data.video.limits import CLIP_SECONDS, fault_of
from mm_data.video.worker import HEADER, READY

DECORD = "mm_data.video.reading_decord:read_frames_decord"
PYAV = "mm_data.video.reading:read_frames"
MEMORY = 8 << 30
"""Bytes of address space of a process that reads. decord keeps a whole file's frames: 1.5 GB for 10 s of
1920x1080."""
START_SECONDS = 60.0
MOST_ANSWER = 4096
"""Bytes."""


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

    def __init__(self, reader: str, seconds: float = CLIP_SECONDS, memory: int = MEMORY) -> None:
        """
        Args:
            reader: `module:function`, what reads in the process.
            seconds: The longest time for one clip.
            memory: Bytes of address space of a process.
        """
        self.reader = reader
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
        worker = self._taken() or self._start()
        request = {"index": attrs.asdict(index), "wanted": list(wanted), "height": height, "width": width}
        try:
            frames, answer = self._ask(worker, file, request)
        except TimeoutError:
            worker.process.kill()
            worker.end()
            raise BadClip("decode", f"reading took longer than {self.seconds:g} s") from None
        except (OSError, ValueError, TypeError, LookupError) as error:
            status = worker.end()
            if fault_of(error) is not Fault.CLIP:
                raise
            # The kernel kills what takes the last memory, which need not be this clip's doing.
            fault = Fault.UNSURE if status == -signal.SIGKILL else Fault.CLIP
            raise BadClip("decode", _how_it_ended(status), fault) from error
        self._idle.append(worker)
        if answer:
            raise BadClip(*answer)
        return frames

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
            if ready != READY:
                process.kill()
                worker.end()
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise UserError(f"the process in which {self.reader} reads clips can't be started: {last}")
        return worker

    def _ask(
        self, worker: _Worker, file: BinaryIO, request: dict[str, Any]
    ) -> tuple[np.ndarray, tuple[str, str, Fault] | None]:
        """The frames, and where, why and by whose fault the clip is bad, if it is.

        Raises:
            OSError, ValueError, TypeError, LookupError: The process ended, or answered with anything else.
        """
        until = time.monotonic() + self.seconds
        shape = (len(request["wanted"]), request["height"], request["width"], 3)
        content = json.dumps(request, default=str).encode()
        memory = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, int(np.prod(shape)))
            # A process that shrank it would end this one with SIGBUS.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            mapped = mmap.mmap(memory, 0)
            file.seek(0)
            worker.socket.settimeout(self.seconds)
            socket.send_fds(worker.socket, [HEADER.pack(len(content))], [file.fileno(), memory])
            worker.socket.sendall(content)
            answer = json.loads(_line(worker.socket, until))
        finally:
            os.close(memory)
        bad = (str(answer["stage"]), str(answer["reason"]), Fault(answer["fault"])) if answer else None
        return np.frombuffer(mapped, np.uint8).reshape(shape), bad


def _line(worker: socket.socket, until: float) -> bytes:
    """What a worker sends up to the end of a line.

    Raises:
        TimeoutError: It isn't there in time.
        ConnectionError: The worker has closed its end, or sends more than a line.
    """
    line = b""
    while not line.endswith(b"\n"):
        worker.settimeout(max(until - time.monotonic(), 1e-3))
        part = worker.recv(MOST_ANSWER)
        if not part or len(line) > MOST_ANSWER:
            raise ConnectionError
        line += part
    return line


def _how_it_ended(status: int) -> str:
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"the decoder's process ended {how}"


@cache
def isolated(reader: str) -> Isolated:
    """The one isolated reader of a name, whose processes all threads share."""
    return Isolated(reader)

"""A door tried on a hostile file in a forked process, and what it touched that is not its own."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from mm_config.cli.exits import exit_status

SECONDS, WAITING_SECONDS = 10, 60
"""Of work, and of anything: on a busy machine 10 seconds of work last longer."""
SPARE_BYTES = 3 * 2**29
"""What a process may take beyond what it has when it is forked."""
_IN_OPEN = 0x20  # sys/inotify.h
CANARY = "these-words-lie-outside"


@attrs.frozen
class Outcome:
    """How a door ended."""

    status: int
    """Exit status, or minus the signal."""
    lines: tuple[str, ...]
    """What it printed."""
    seconds: float
    """How long it took."""


@attrs.frozen
class Surroundings:
    """What lies outside a hostile file and must stay untouched."""

    canary: Path
    """A file that nothing opens."""
    marker: Path
    """A file that code in hostile files makes."""
    watch: int
    """The inotify descriptor of the canary."""
    hits: int
    """A pipe with one byte for each connection that the listener got."""
    port: int
    """Of the listener, on the loopback address."""

    def touched(self) -> list[str]:
        """What was run, fetched or read since it was last asked."""
        found = ["ran code"] if self.marker.exists() else []
        found += ["fetched something"] if _drained(self.hits) else []
        found += ["read outside"] if _drained(self.watch) else []
        shutil.rmtree(self.marker, ignore_errors=True)
        return found


def surround(folder: Path) -> tuple[Surroundings, int]:
    """Lays out a canary, and a listener in a process of its own, whose id is the second value."""
    canary = folder / "canary.json"
    canary.write_text(f'"{CANARY}"')
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0 and libc.inotify_add_watch(watch, bytes(canary), _IN_OPEN) >= 0
    listener = socket.create_server(("127.0.0.1", 0))
    hits, told = os.pipe()
    os.set_blocking(hits, False)
    pid = os.fork()
    if pid == 0:
        while True:
            listener.accept()[0].close()
            os.write(told, b"x")
    os.close(told)
    port: int = listener.getsockname()[1]
    listener.close()
    return Surroundings(canary, folder / "marker", watch, hits, port), pid


def attempt(door: Callable[[], Any], port: int, folder: Path) -> Outcome:
    """Opens a door in a forked process, with limits on time and memory, kept offline by our code alone."""
    began = time.monotonic()
    printed = folder / "printed.txt"
    pid = os.fork()
    if pid == 0:
        with printed.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        _limit(port)
        os._exit(_ended(door))
    _, status = os.waitpid(pid, 0)
    lines = printed.read_text("utf-8", "replace").splitlines()
    return Outcome(os.waitstatus_to_exitcode(status), tuple(lines), time.monotonic() - began)


def _ended(door: Callable[[], Any]) -> int:
    import traceback

    try:
        return exit_status(lambda: int(door() or 0))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def _limit(port: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(time.process_time())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))
    signal.alarm(WAITING_SECONDS)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        os.environ[name] = f"http://127.0.0.1:{port}"
    from huggingface_hub import constants

    constants.ENDPOINT = f"http://127.0.0.1:{port}"
    constants.HF_HUB_OFFLINE = False


def _drained(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 2**16)
    except BlockingIOError:
        return b""

"""Runs a training in a fork of the test, which has torch imported already."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from mm_config.interrupts import leave


@attrs.frozen
class Child:
    """A fork and its output."""

    pid: int
    """Its process."""
    folder: Path | None
    """Where its output lies; None where it goes elsewhere."""

    def status(self, seconds: float = 60) -> int:
        """Exit status as a shell shows it; what takes longer is killed."""
        deadline = time.monotonic() + seconds
        while (done := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(done[1])
        return code if code >= 0 else 128 - code

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """Exit status as a shell shows it, stdout and stderr."""
        assert self.folder is not None
        status = self.status(seconds)
        return status, (self.folder / "stdout").read_text(), (self.folder / "stderr").read_text()

    def kill(self) -> None:
        """Ends it, where it lives, and waits for its end."""
        with suppress(ChildProcessError, ProcessLookupError):
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)

    @contextmanager
    def killed_after_all(self) -> Generator[None]:
        """Kills it where a test fails before its end, so that it doesn't stay."""
        try:
            yield
        except BaseException:
            self.kill()
            raise


def forked(body: Callable[[], object], folder: Path) -> Child:
    """Starts a fork that carries out `body`."""
    folder.mkdir(parents=True)
    if pid := os.fork():
        return Child(pid, folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), number)
    carry_out(body)
    raise AssertionError("it ended the process")


def carry_out(body: Callable[[], object]) -> None:
    """Ends this process, a fork, with the status of `body`; Ctrl-C is taken over as in one of mm's own."""
    status = 1
    gc.freeze()  # What the tests before left may have threads, which a fork has not and can't wait for.
    try:
        signal.signal(signal.SIGINT, leave)
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
        body()
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait_for(ready: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)

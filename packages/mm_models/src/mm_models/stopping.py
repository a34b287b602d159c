"""Asking a run to stop: a signal only sets a flag, which the loop reads between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mm_config.options import StoppedEarly
from mm_config.running import leave

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals that ask a run to stop: Ctrl-C, the scheduler's or the system's word, a closed terminal, and what
schedulers are told to send a while before the end."""
_ECHO_SECONDS = 1.0
"""For so long torchrun passes on a signal that the terminal or the scheduler gave to all processes."""


@contextmanager
def stop_requests() -> Generator[Callable[[], int]]:
    """Gives a function that says which signal asked to stop in the block: its number, or 0.

    A second signal is not noted but acts at once, as it would have acted outside of the block; for a process
    that is mm's own also while the main thread waits for a device or for other ranks, where Python runs no
    handler. A request that the block did not follow acts at its end. Signals that are ignored, as under
    nohup, stay so. Outside of the main thread, where Python allows no handlers, it always says 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before: dict[int, Any] = {
        number: handler
        for number in ASKING
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
    }
    arrived: list[int] = []
    counted = _counter()

    def note(number: int, frame: FrameType | None) -> None:
        match counted(number):
            case 1:
                arrived.append(number)
                if number == signal.SIGHUP:
                    _forget_terminal()
            case 2 if before.get(signal.SIGINT) is not leave:
                signal.signal(number, before[number])
                signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        with _watched(before):
            yield lambda: arrived[0] if arrived else 0
    except StoppedEarly:
        _act(before, arrived)
        raise
    except BaseException:
        _act(before, [])
        raise
    _act(before, arrived)


def _act(before: dict[int, Any], arrived: list[int]) -> None:
    """Puts the handlers back, and has what arrived act as they say."""
    for number, handler in before.items():
        signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)


def _counter() -> Callable[[int], int]:
    """Counts signals: 1 for the first, 2 for any that came of its own after it, 0 for the launcher's echo.

    SIGUSR1 only warns of an end to come: the SIGTERM that schedulers send after it is the first.
    """
    patience = _ECHO_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
    first: list[float] = []

    def count(number: int) -> int:
        if number == signal.SIGUSR1:
            return 1
        first.append(time.monotonic())
        return 1 if len(first) == 1 else 2 * (first[-1] - first[0] >= patience)

    return count


@contextmanager
def _watched(before: dict[int, Any]) -> Generator[None]:
    """Ends a process that is mm's own at the second signal, by a thread that learns of it at once."""
    if before.get(signal.SIGINT) is not leave:
        yield
        return
    told, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    counted = _counter()

    def watch() -> None:
        while number := os.read(told, 1)[0]:
            if number in before and counted(number) == 2:
                leave(number)

    thread = threading.Thread(target=watch, name="second signal", daemon=True)
    thread.start()
    earlier = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        os.write(wakeup, b"\0")
        thread.join()
        os.close(told)
        os.close(wakeup)


def _forget_terminal() -> None:
    """Lets output go nowhere where its terminal is gone: what is said of the last step must not end it."""
    for file in (1, 2):
        with suppress(OSError):
            if os.isatty(file):
                continue
        try:
            os.write(file, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), file)

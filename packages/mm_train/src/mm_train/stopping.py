"""Asking a run to stop: a signal only sets a flag, which the loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Generator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM or SIGINT has arrived in the block.

    A second SIGINT raises KeyboardInterrupt at once, for those who can't wait for the step. Outside of the
    main thread, where Python allows no handlers, the function always says no.
    """
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in arrived:
            raise KeyboardInterrupt
        arrived.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

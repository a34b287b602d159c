"""Takes items from a source before they are needed, and tells a stalled source from a slow one."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Generator, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


def ahead(
    source: Iterator[T], size: int, stall_seconds: float, stalled: Callable[[], Exception]
) -> Generator[T, None, None]:
    """The items of a source, up to `size` of which a thread takes ahead.

    A decoder that hangs in native code can't be interrupted from Python; the wait for it can.

    Args:
        source: Used by the thread alone.
        size: Items that wait at most.
        stall_seconds: The longest wait for an item. After it, the stacks of all threads go to stderr.
        stalled: The error that is raised then.
    """
    items: Queue[T | Exception] = Queue(size)
    stop = Event()
    thread = Thread(target=_take, args=(source, items, stop), name="mm_data.ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = items.get(timeout=stall_seconds)
            except Empty:
                faulthandler.dump_traceback(all_threads=True)
                raise stalled() from None
            if isinstance(item, StopIteration):
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=10 * POLL_SECONDS)


def _take(source: Iterator[T], items: Queue[T | Exception], stop: Event) -> None:
    """Moves items until the source ends or raises, which is passed on as an item."""
    item: T | Exception | None = None
    while not stop.is_set() and not isinstance(item, Exception):
        try:
            item = next(source)
        except StopIteration:
            # Not the caught one: its traceback would keep the source, and its threads, alive.
            item = StopIteration()
        except Exception as error:
            item = error
        _put(item, items, stop)


def _put(item: object, items: Queue[Any], stop: Event) -> None:
    while not stop.is_set():
        try:
            return items.put(item, timeout=POLL_SECONDS)
        except Full:
            continue

"""Takes items from a source before they are needed, and tells a stalled source from a slow one."""

from __future__ import annotations

import faulthandler
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

JOIN_SECONDS = 1.0


class Ahead(Generic[T]):
    """The items of a source, which a thread takes as soon as they come; the source bounds how many.

    A decoder that hangs in native code can't be interrupted from Python; the wait for it can.
    """

    def __init__(
        self,
        source: Iterator[T],
        stall_seconds: float,
        stalled: Callable[[], Exception],
    ) -> None:
        """Args:
        source: Used by the thread alone.
        stall_seconds: The longest wait for an item. After it, the stacks of all threads go to stderr.
        stalled: The error that is raised then.
        """
        self._stall_seconds = stall_seconds
        self._stalled = stalled
        self._items: deque[T | Exception] = deque()
        self._stop = False
        self._changed = Condition()
        self._thread = Thread(target=self._take, args=(source,), name="mm_data.ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout=self._stall_seconds):
                faulthandler.dump_traceback(all_threads=True)
                raise self._stalled()
            if isinstance(self._items[0], Exception):
                raise self._items[0]
            item = self._items.popleft()
            assert not isinstance(item, Exception)
            return item

    def waiting(self) -> list[T]:
        """The items that have arrived, in their order; they stay."""
        with self._changed:
            return [item for item in self._items if not isinstance(item, Exception)]

    def close(self) -> None:
        """Stops the thread, unless it hangs in the source."""
        with self._changed:
            self._stop = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join(timeout=JOIN_SECONDS)

    def _take(self, source: Iterator[T]) -> None:
        """Moves items until the source ends or raises, which is passed on as an item."""
        while not self._stop:
            item: T | Exception
            try:
                item = next(source)
            except StopIteration:
                # Not the caught one: its traceback would keep the source, and its threads, alive.
                item = StopIteration()
            except Exception as error:
                item = error
            ended = isinstance(item, Exception)
            with self._changed:
                if not self._stop:
                    self._items.append(item)
                self._changed.notify_all()
            if ended:
                return

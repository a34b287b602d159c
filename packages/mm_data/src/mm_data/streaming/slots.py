"""The places in batches that one rank fills, step by step, and how many of them are on their way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition
from typing import Any

import attrs
from torchdata.nodes import BaseNode

from mm_data.plan.plan import Plan
from mm_data.records import Shape

MIB = 2**20


@attrs.frozen
class Slot:
    """A place in the plan to be filled."""

    step: int
    """Optimizer step, from 0."""
    position: int
    """Place in the global batch."""
    shape: Shape = attrs.field(eq=False)
    """That of its batch's clips."""

    @property
    def num_bytes(self) -> int:
        """What its decoded clip takes: three bytes for each pixel."""
        return 3 * self.shape.num_frames * self.shape.height * self.shape.width


class Room:
    """How many clips, and how many bytes of them, may be on their way; one is let through, however large."""

    def __init__(self, start_step: int, batches: int, workers: int, most_bytes: int | None) -> None:
        """Args:
        start_step: The first step.
        batches: How many of them may wait whole, beside the one that is being taken.
        workers: Clips that are loaded at a time; so many of later batches may be on their way as well.
        most_bytes: Of all together; None sets no bound.
        """
        self.waiting: list[Slot] = []
        """Places whose threads wait for their turn."""
        self._last = start_step + batches - 1
        self._batches = batches
        self._workers = workers
        self._most_bytes = most_bytes
        self._given: Counter[int] = Counter()
        self._bytes = 0
        self._loading = 0
        self._closed = False
        self._changed = Condition()

    def take(self, slot: Slot) -> None:
        """Waits until a clip may be loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(slot))
            self._given[slot.step] += 1
            self._bytes += slot.num_bytes

    def give_back(self, slot: Slot) -> None:
        """Says that a clip was taken by the caller."""
        with self._changed:
            self._given[slot.step] -= 1
            self._given = +self._given
            self._bytes -= slot.num_bytes
            self._last = slot.step + self._batches
            self._changed.notify_all()

    @contextmanager
    def turn(self, slot: Slot) -> Generator[bool]:
        """Waits until a thread may load, the first place that waits before all others; gives whether anybody
        still wants it to."""
        with self._changed:
            self.waiting.append(slot)
            self._changed.wait_for(lambda: self._closed or self._is_next(slot))
            self.waiting.remove(slot)
            self._loading += 1
            self._changed.notify_all()
        try:
            yield not self._closed
        finally:
            with self._changed:
                self._loading -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_next(self, slot: Slot) -> bool:
        first = min(self.waiting, key=lambda other: (other.step, other.position))
        return self._loading < self._workers and slot == first

    def _fits(self, slot: Slot) -> bool:
        beyond = sum(count for step, count in self._given.items() if step > self._last)
        if slot.step > self._last and beyond >= self._workers:
            return False
        return self._most_bytes is None or not self._bytes or self._bytes + slot.num_bytes <= self._most_bytes


class Slots(BaseNode[Slot]):
    """The slots of one rank from `start_step` to `end_step`; its state is two numbers."""

    def __init__(
        self, plan: Plan, start_step: int, end_step: int, rank: int, world_size: int, room: Room
    ) -> None:
        super().__init__()
        self.plan = plan
        self.start_step = start_step
        self.end_step = end_step
        self.rank = rank
        self.world_size = world_size
        self.room = room
        self.step = start_step
        self.place = 0

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        super().reset(initial_state)
        self.step = initial_state["step"] if initial_state else self.start_step
        self.place = initial_state["place"] if initial_state else 0

    def next(self) -> Slot:
        if self.step >= self.end_step:
            raise StopIteration
        share = self.plan.size(self.step) // self.world_size
        slot = Slot(self.step, self.rank * share + self.place, self.plan.shape(self.step))
        self.room.take(slot)
        self.step, self.place = (self.step, self.place + 1) if self.place + 1 < share else (self.step + 1, 0)
        return slot

    def get_state(self) -> dict[str, Any]:
        return {"step": self.step, "place": self.place}

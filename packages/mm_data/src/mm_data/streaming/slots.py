"""The places in batches that one rank fills, step by step, within a bound on the bytes on their way."""

from __future__ import annotations

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


class Budget:
    """Bytes of the clips that are on their way; a bound on them that lets one clip through, however large."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._used = 0
        self._closed = False
        self._changed = Condition()

    def take(self, num_bytes: int) -> None:
        """Waits until a clip may be loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(num_bytes))
            self._used += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Says that a clip has arrived."""
        with self._changed:
            self._used -= num_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, num_bytes: int) -> bool:
        return self.most is None or not self._used or self._used + num_bytes <= self.most


class Slots(BaseNode[Slot]):
    """The slots of one rank from `start_step` to `end_step`; its state is two numbers."""

    def __init__(
        self, plan: Plan, start_step: int, end_step: int, rank: int, world_size: int, budget: Budget
    ) -> None:
        super().__init__()
        self.plan = plan
        self.start_step = start_step
        self.end_step = end_step
        self.rank = rank
        self.world_size = world_size
        self.budget = budget
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
        self.budget.take(slot.num_bytes)
        self.step, self.place = (self.step, self.place + 1) if self.place + 1 < share else (self.step + 1, 0)
        return slot

    def get_state(self) -> dict[str, Any]:
        return {"step": self.step, "place": self.place}

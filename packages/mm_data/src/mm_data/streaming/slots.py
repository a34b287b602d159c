"""The places in batches that one rank fills, step by step."""

from __future__ import annotations

from typing import Any

import attrs
from torchdata.nodes import BaseNode


@attrs.frozen
class Slot:
    """A place in the plan to be filled."""

    step: int
    """Optimizer step, from 0."""
    position: int
    """Place in the global batch."""


class Plan(BaseNode[Slot]):
    """The slots of one rank from `start_step` to `end_step`; its state is one number."""

    def __init__(self, start_step: int, end_step: int, positions: range) -> None:
        super().__init__()
        self.start_step = start_step
        self.positions = positions
        self.size = (end_step - start_step) * len(positions)
        self.taken = 0

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        super().reset(initial_state)
        self.taken = initial_state["taken"] if initial_state else 0

    def next(self) -> Slot:
        if self.taken >= self.size:
            raise StopIteration
        step, place = divmod(self.taken, len(self.positions))
        self.taken += 1
        return Slot(self.start_step + step, self.positions[place])

    def get_state(self) -> dict[str, Any]:
        return {"taken": self.taken}

"""Time by part: marks that are set while the device works on, read when it has come past them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

STEP_PARTS = ("data", "encode", "forward", "backward", "optimizer")
"""What a step is made of: waiting for the batch, encoding it, the network forward and back, the update."""


@attrs.frozen
class Lap:
    """Marks between two steps' ends; the first only says when it begins."""

    marks: Sequence[tuple[str, Any]]
    """Part and time, on accelerators an event."""

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, in the order of its first mark; waits until the device is past the last."""
        if not isinstance(last := self.marks[-1][1], float):
            last.synchronize()
        parts: dict[str, float] = {}
        for (_, begun), (part, ended) in zip(self.marks, self.marks[1:], strict=False):
            parts[part] = parts.get(part, 0.0) + _between(begun, ended)
        return parts


class Clock:
    """Attributes time to parts. A mark is an event on an accelerator, which nobody waits for."""

    def __init__(self, device: torch.device) -> None:
        self._module = None if device.type == "cpu" else torch.get_device_module(device)
        self._marks: list[tuple[str, Any]] = [("", self._now())]

    def mark(self, part: str) -> None:
        """Says that the time since the last mark was spent on a part."""
        self._marks.append((part, self._now()))

    def restart(self) -> None:
        """Forgets the time before now."""
        self._marks = [("", self._now())]

    def lap(self) -> Lap:
        """All since the last lap; the next begins at the last mark."""
        lap, self._marks = Lap(self._marks), self._marks[-1:]
        return lap

    def _now(self) -> Any:
        if self._module is None:
            return time.perf_counter()
        event = self._module.Event(enable_timing=True)
        event.record()
        return event


def _between(begun: Any, ended: Any) -> float:
    """Seconds; those of events count what the device did, and waited for."""
    return ended - begun if isinstance(begun, float) else begun.elapsed_time(ended) / 1000


@attrs.define
class Totals:
    """Sums over the steps of a process."""

    steps: int = 0
    """How many."""
    samples: int = 0
    """Clips."""
    tokens: int = 0
    """Their tokens."""
    model_flops: int = 0
    """Three forward passes of the network for each clip."""
    executed_flops: int = 0
    """With what was computed again."""
    seconds: dict[str, float] = attrs.field(factory=dict)
    """Time by part."""

    def add(
        self,
        samples: int,
        tokens: int,
        model_flops: int,
        executed_flops: int,
        seconds: Mapping[str, float],
    ) -> None:
        """Adds a step, and what was done between it and the one before."""
        self.steps += 1
        self.samples += samples
        self.tokens += tokens
        self.model_flops += model_flops
        self.executed_flops += executed_flops
        self.spend(seconds)

    def spend(self, seconds: Mapping[str, float]) -> None:
        """Adds time by part."""
        for part, more in seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + more

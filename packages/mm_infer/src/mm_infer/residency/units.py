"""Weights that are on the device or wait, together: where their values come from, and who brings them.

What waits in the host's memory is copied by a stream of its own, what waits in its files is read by a thread
of its own; the device computes with it only after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from mm_models import Memory
from mm_models.device import pinned_like, side_stream

Fill = Callable[[], None]
"""Gives weights, which have memory, their values."""
Arrival = Callable[[], None]
"""Waits until weights are there, or has the device wait; may be called again."""


class Unit:
    """Some weights; without memory as long as they wait."""

    def __init__(self, tensors: Iterable[Tensor], fill: Fill) -> None:
        self.memory = Memory(tensors)
        """Of the weights, on the device."""
        self._fill = fill

    @torch.no_grad()
    def fetch(self) -> None:
        """Brings the values, from wherever they wait, into memory that is there."""
        self._fill()

    def come(self) -> None:
        """Brings the weights."""
        self.memory.allocate()
        self.fetch()

    def leave(self) -> None:
        """Gives their memory back."""
        self.memory.release()

    @torch.no_grad()
    def keep_on_host(self) -> None:
        """Has weights that are there wait in the host's memory from now on, pinned beside an accelerator."""
        kept = [pinned_like(part).copy_(part) for part in self.memory.parts]

        def copy_back() -> None:
            for part, values in zip(self.memory.parts, kept, strict=True):
                part.copy_(values, non_blocking=True)

        self._fill = copy_back


class Courier:
    """Brings units while the device computes; one at a time, in the order in which it is asked."""

    def __init__(self, device: torch.device, *, from_files: bool) -> None:
        self._stream = None if from_files else side_stream(device)
        self._thread = ThreadPoolExecutor(1, "weights") if from_files else None

    def send(self, unit: Unit) -> Arrival:
        """Begins to bring a unit."""
        unit.memory.allocate()
        if self._thread is not None:
            return self._thread.submit(unit.fetch).result
        if self._stream is None:
            unit.fetch()
            return lambda: None
        return self._copied(self._stream, unit)

    def _copied(self, side: torch.Stream, unit: Unit) -> Arrival:
        # What was computed last may have used the memory that the unit has got now.
        side.wait_stream(torch.accelerator.current_stream(side.device))
        with side:
            unit.fetch()
            arrived = side.record_event()
        return lambda: torch.accelerator.current_stream(side.device).wait_event(arrived)

"""Clips on their way to the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm_models import device as devices


class Mover:
    """Moves frames to a device; beside what it computes where they were announced before.

    They should lie in pinned memory then: else the copy keeps the caller waiting.
    """

    def __init__(self, device: torch.device, side: torch.Stream | None = None) -> None:
        self._device = device
        self._side = side
        self._moved: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, frames: Sequence[Tensor]) -> None:
        """Announces what `take` is asked for next; does nothing without a side stream."""
        if self._side is not None:
            with self._side:
                copies = [one.to(self._device, non_blocking=True) for one in frames]
            # The frames are kept, so that no other takes their place, and their id, before.
            self._moved = {id(one): (one, copy) for one, copy in zip(frames, copies, strict=True)}

    def take(self, frames: Sequence[Tensor]) -> Tensor:
        """`[B, ...]` on the device, of B tensors of one shape."""
        if self._side is None:
            return torch.stack(list(frames)).to(self._device)
        if any(id(one) not in self._moved for one in frames):
            self.begin(frames)
        copies = [self._moved[id(one)][1] for one in frames]
        devices.await_moved(self._side, copies)
        self._moved = {}
        return torch.stack(copies)

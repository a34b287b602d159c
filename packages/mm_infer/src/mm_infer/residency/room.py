"""The room on the device that experts and encoders share which don't fit beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_config.specs import Expert
from mm_infer.passes import Forward, Pass


class Guest(Protocol):
    """What is in the room only while it works."""

    def come(self) -> None:
        """Brings it."""
        ...

    def leave(self) -> None:
        """Gives its memory back."""
        ...


class Room:
    """Holds one guest at a time; it stays until another one comes."""

    def __init__(self) -> None:
        self._guest: Guest | None = None

    def enter(self, guest: Guest) -> None:
        """Brings a guest, unless it is there; the one before leaves first."""
        if guest is not self._guest:
            self.empty()
            guest.come()
            self._guest = guest

    def empty(self) -> None:
        """Has whoever is there leave."""
        if self._guest is not None:
            self._guest.leave()
            self._guest = None


class Permanent:
    """What is on the device anyway, before which others leave the room."""

    def come(self) -> None:
        """It is there."""

    def leave(self) -> None:
        """It stays."""


class Built:
    """A part of a pipeline that is built, out of its files, when it is needed, and given up after that."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self.part: Any = None
        """What was built, while it is there."""

    def come(self) -> None:
        """Builds it."""
        # What is built within a call of the pipeline is used by later ones as well.
        with torch.inference_mode(False):
            self.part = self._build()

    def leave(self) -> None:
        """Gives it up."""
        self.part = None


class Moved:
    """A part of a pipeline whose weights wait in the host's memory."""

    def __init__(self, part: Any, weights: Guest) -> None:
        self.part, self._weights = part, weights

    def come(self) -> None:
        """Copies the weights onto the device."""
        self._weights.come()

    def leave(self) -> None:
        """Gives their memory back."""
        self._weights.leave()


class Swapped:
    """An encoder that enters the room when it is asked for anything; otherwise it is the encoder itself."""

    def __init__(self, room: Room, guest: Built | Moved) -> None:
        self._room, self._guest = room, guest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._room.enter(self._guest)
        return getattr(self._guest.part, name)


def in_room(forward: Forward, room: Room, guests: Mapping[Expert, Guest]) -> Forward:
    """Passes before each of which the expert that makes it enters the room."""

    def after_entering(which: Pass, *inputs: Tensor) -> Tensor:
        room.enter(guests[which.expert])
        return forward(which, *inputs)

    return after_entering

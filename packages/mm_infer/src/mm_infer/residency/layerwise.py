"""Blocks that are on the device only while they compute, and the next ones on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from mm_infer.residency.units import Arrival, Courier, Unit


class Layerwise:
    """The blocks of a network that wait; hooks bring each before it computes, and the next ones meanwhile.

    Hooks run outside of what is compiled. Which block comes next is a guess, the first after the last: a pass
    that goes otherwise gets its blocks, later.
    """

    def __init__(
        self, ends: Unit, blocks: Mapping[nn.Module, Unit], *, prefetch: int, courier: Courier
    ) -> None:
        """Takes the blocks over.

        Args:
            ends: All other weights, which are there as long as the network works.
            blocks: Those that wait, in the order in which they compute.
            prefetch: How many are brought ahead, fewer than there are.
            courier: Brings them.
        """
        assert prefetch < len(blocks)
        self._ends, self._units = ends, tuple(blocks.values())
        self._prefetch, self._courier = prefetch, courier
        self._sent: dict[int, Arrival] = {}
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(partial(self._bring, index), with_kwargs=True)
            block.register_forward_hook(partial(self._take_away, index))

    def come(self) -> None:
        """Brings what is there in every pass, and the first blocks."""
        self._ends.come()
        self._send(range(self._prefetch))

    def leave(self) -> None:
        """Takes everything off the device."""
        for index in tuple(self._sent):
            self._drop(index)
        self._ends.leave()

    def _bring(self, index: int, *_: Any) -> None:
        nearest = [(index + ahead) % len(self._units) for ahead in range(1 + self._prefetch)]
        for other in self._sent.keys() - set(nearest):
            self._drop(other)
        self._send(nearest)
        self._sent[index]()

    def _take_away(self, index: int, *_: Any) -> None:
        self._drop(index)

    def _send(self, indexes: Sequence[int]) -> None:
        for index in indexes:
            if index not in self._sent:
                self._sent[index] = self._courier.send(self._units[index])

    def _drop(self, index: int) -> None:
        self._sent.pop(index)()  # Nothing may still be written into its memory.
        self._units[index].leave()

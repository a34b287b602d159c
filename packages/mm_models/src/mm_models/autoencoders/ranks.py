"""Ranks that encode and decode together: what each has made is gathered, what the next needs is handed on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, Work

_REPEAT = "Rep"
"""diffusers' word in a cache for a first frame that the next one doesn't look back at."""
_AXES = 5
"""Of a cache; a header of as many sizes goes before it, all zeros for the word."""


@attrs.frozen(eq=False)
class Ranks:
    """The place of this process among those that share an autoencoder's work."""

    host: ProcessGroup
    """Takes tensors of the host's memory."""
    forth: ProcessGroup
    """By which each rank hands on to the next one."""
    back: ProcessGroup
    """By which the last rank hands on to the first: NCCL works off what a pair sends both ways in one queue,
    where each would wait for the other."""

    @property
    def place(self) -> int:
        """Of this rank among them."""
        return self.host.rank()

    @property
    def size(self) -> int:
        """How many there are."""
        return self.host.size()

    def gather(
        self, mine: Sequence[Tensor], shapes: Sequence[Sequence[tuple[int, ...]]], dtype: torch.dtype
    ) -> list[list[Tensor]]:
        """The tensors of every rank, in the host's memory.

        Args:
            mine: This rank's; none where it has none.
            shapes: Of each rank's, by its place; ranks at the end that have none may be left out.
            dtype: Of all of them.
        """
        counts = [sum(map(math.prod, those)) for those in shapes]
        packed = torch.zeros(max(counts), dtype=dtype)
        if mine:
            packed[: counts[self.place]] = torch.cat([one.cpu().flatten() for one in mine])
        parts = [torch.empty_like(packed) for _ in range(self.size)]
        as_bytes = [one.view(torch.uint8) for one in parts]
        dist.all_gather(as_bytes, packed.view(torch.uint8), group=self.host)
        return [_unpacked(part, those) for part, those in zip(parts, shapes, strict=False)]


def ranks_of(group: ProcessGroup, timeout_seconds: int) -> Ranks:
    """The ranks of a group, which all call this: groups of their own are made for them.

    Args:
        group: Of at least two ranks that make one video.
        timeout_seconds: Longest wait of a rank for the others.
    """
    members, timeout = dist.get_process_group_ranks(group), timedelta(seconds=timeout_seconds)
    made = [
        dist.new_group(members, timeout=timeout, backend=backend, use_local_synchronization=True)
        for backend in ("gloo", None, None)
    ]
    host, forth, back = (one for one in made if isinstance(one, ProcessGroup))
    return Ranks(host, forth, back)


class Relay(list[Any]):
    """diffusers' list of caches for ranks that compute the chunks of frames in turn.

    Each convolution looks back at its last inputs alone, and a rank has those of its own chunk at once: so it
    hands them on before it goes on, the rank of the next chunk follows one convolution behind, and all ranks
    compute at the same time what one process computes, chunk by chunk.
    """

    def __init__(self, ranks: Ranks, chunks: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._ranks, self._chunks, self._device, self._dtype = ranks, chunks, device, dtype
        self._index = 0
        self._received: dict[int, Any] = {}
        self._sent: list[list[tuple[Work, Tensor]]] = []

    def begin(self, index: int) -> None:
        """Makes this the list for a chunk; the chunks of a rank follow in their order."""
        self._index, self._received = index, {}
        self._wait(keep=1)
        self._sent.append([])

    def end(self) -> None:
        """Waits until all has been taken."""
        self._wait(keep=0)

    def __getitem__(self, place: Any) -> Any:
        if self._index == 0:
            return None
        if place not in self._received:
            self._received = {place: self._receive()}
        return self._received[place]

    def __setitem__(self, place: Any, value: Any) -> None:
        if self._index + 1 == self._chunks:
            return
        if isinstance(value, str):
            assert value == _REPEAT
            self._send(torch.zeros(_AXES, dtype=torch.int64, device=self._device))
            return
        self._send(torch.tensor(value.shape, device=self._device))
        self._send(value.contiguous())

    def _receive(self) -> Any:
        ranks = self._ranks
        group, source = ranks.forth if ranks.place else ranks.back, (ranks.place - 1) % ranks.size
        header = torch.empty(_AXES, dtype=torch.int64, device=self._device)
        dist.recv(header, group=group, group_src=source)
        shape = header.tolist()
        if not any(shape):
            return _REPEAT
        value = torch.empty(shape, dtype=self._dtype, device=self._device)
        dist.recv(value, group=group, group_src=source)
        return value

    def _send(self, value: Tensor) -> None:
        ranks = self._ranks
        target = (ranks.place + 1) % ranks.size
        work = dist.isend(value, group=ranks.forth if target else ranks.back, group_dst=target)
        assert work is not None, "this rank is of the group"
        self._sent[-1].append((work, value))

    def _wait(self, keep: int) -> None:
        """Waits for what was sent of all chunks but the last `keep`."""
        while len(self._sent) > keep:
            for work, _ in self._sent.pop(0):
                work.wait()


def _unpacked(part: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    counts = [*map(math.prod, shapes)]
    split = part[: sum(counts)].split(counts) if counts else ()
    return [one.view(shape) for one, shape in zip(split, shapes, strict=True)]

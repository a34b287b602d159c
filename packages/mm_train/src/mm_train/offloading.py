"""What waits in the host's memory until it is needed: values that autograd keeps of a module between its
forward and its backward pass, and encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef

from mm_models import device as devices

LEAST_BYTES = 2**20
"""Storages that are smaller stay: the calls for a copy would take longer than the copy."""


class Offload:
    """Moves what is kept to the host and back, on a stream of its own; on a CPU both are one memory.

    The passes of modules are brought back in the order in which backward needs them, from the last to the
    first: with the first value of a pass come all of it, and those of the `ahead` passes before it.
    """

    def __init__(self, device: torch.device, ahead: int) -> None:
        self._side = devices.side_stream(device)
        self._ahead = ahead
        self._passes: list[WeakSet[_Waiting]] = []
        self._waiting: WeakValueDictionary[int, _Waiting] = WeakValueDictionary()
        self._parameters: frozenset[int] = frozenset()

    def around(self, network: nn.Module, names: Sequence[str]) -> None:
        """Has what modules keep wait elsewhere. The method `forward` is replaced, see `recompute`."""
        for name in names:
            module = network.get_submodule(name)
            module.forward = partial(self._run, module, module.forward)

    def _run(self, module: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        self._passes = [*filter(None, self._passes), WeakSet()]
        # FSDP2 frees and fills the memory of parameters itself.
        self._parameters = frozenset(one.untyped_storage()._cdata for one in module.parameters())
        with saved_tensors_hooks(self.pack, self.unpack):
            return forward(*inputs, **named)

    def pack(self, tensor: Any) -> Any:
        """What is kept in a tensor's place: the tensor itself where it has to stay."""
        if type(tensor) is not Tensor or tensor.untyped_storage().nbytes() < LEAST_BYTES:
            return tensor
        storage = tensor.untyped_storage()
        if storage._cdata in self._parameters:
            return tensor
        waiting, current = self._waiting.get(storage._cdata), self._passes[-1]
        if waiting is None or waiting.version != tensor._version:
            waiting = _Waiting(tensor, self._side)
            self._waiting[storage._cdata] = waiting
            current.add(waiting)
        elif waiting not in current:
            return tensor  # An input of several modules, such as the text, is there anyway.
        return _View(waiting, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def unpack(self, kept: Any) -> Any:
        """The tensor again."""
        if not isinstance(kept, _View):
            return kept
        place = next(place for place, one in enumerate(self._passes) if kept.waiting in one)
        for one in reversed(self._passes[max(0, place - self._ahead) : place + 1]):
            for waiting in one:
                waiting.bring(self._side)
        return kept.tensor(self._side)


class _Waiting:
    """A storage in the host's memory."""

    def __init__(self, tensor: Tensor, side: torch.Stream | None) -> None:
        self.version = tensor._version
        # While it is known, no other storage has its number.
        self._known = StorageWeakRef(tensor.untyped_storage())
        self._device = tensor.device
        self._back: Tensor | None = None
        self._ready: Any = None
        there = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
        self._host = devices.pinned_like(there)
        with devices.beside(side, there):
            self._host.copy_(there, non_blocking=True)

    def bring(self, side: torch.Stream | None) -> None:
        """Begins to copy it back, unless that has begun."""
        if self._back is None:
            self._back = torch.empty_like(self._host, device=self._device, pin_memory=False)
            with devices.beside(side, self._back):
                self._back.copy_(self._host, non_blocking=True)
            self._ready = None if side is None else side.record_event()

    def bytes(self, side: torch.Stream | None) -> Tensor:
        """All of it, on the device."""
        self.bring(side)
        assert self._back is not None
        if self._ready is not None:
            torch.accelerator.current_stream(self._device).wait_event(self._ready)
        return self._back


@attrs.frozen(eq=False)
class _View:
    """A tensor in a storage that waits."""

    waiting: _Waiting
    """The storage."""
    dtype: torch.dtype
    """Of the tensor."""
    shape: torch.Size
    """Of the tensor."""
    stride: tuple[int, ...]
    """Its steps in memory."""
    offset: int
    """Where it begins."""

    def tensor(self, side: torch.Stream | None) -> Tensor:
        """On the device."""
        there = self.waiting.bytes(side)
        empty = torch.empty(0, dtype=self.dtype, device=there.device)
        return empty.set_(there.untyped_storage(), self.offset, self.shape, self.stride)


class Resting:
    """Encoders that lie in the host's memory, but for the time of a `with`.

    Their weights never change: they are copied to the device and forgotten there.
    """

    def __init__(self, encoders: Iterable[Any]) -> None:
        """Takes those of their attributes that are networks; weights that are sharded wait by themselves."""
        networks = [one for held in encoders for one in networks_of(held)]
        every = [one for network in networks for one in (*network.parameters(), *network.buffers())]
        tensors = [one for one in every if not isinstance(one, DTensor)]
        self._places = [
            (tensor, tensor.device, devices.pinned_like(tensor).copy_(tensor)) for tensor in tensors
        ]
        self._rest()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """They lie on their device."""
        for tensor, device, host in self._places:
            tensor.data = host.to(device, non_blocking=True)
        try:
            yield
        finally:
            self._rest()

    def _rest(self) -> None:
        for tensor, _, host in self._places:
            tensor.data = host


def networks_of(encoder: Any) -> list[nn.Module]:
    """Those of an encoder's attributes that are networks."""
    return [one for one in vars(encoder).values() if isinstance(one, nn.Module)]

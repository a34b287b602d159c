"""Weights without memory: tensors that keep their shape and place while their values wait elsewhere.

Parameters stay the same objects, so hooks, compiled blocks and shards of theirs go on holding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def without_memory(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Gives a network on meta parameters on a device that have no memory yet; buffers have none either.

    One parameter at a time has memory for a moment, so a network may be larger than the device.
    """

    def hollow(tensor: Tensor) -> Tensor:
        empty = torch.empty_like(tensor, device=device)
        empty.untyped_storage().resize_(0)
        return empty

    return network._apply(hollow)


class Memory:
    """The memory of some tensors, which comes and goes while they stay."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.parts = [part for tensor in tensors for part in plain_parts(tensor)]
        """The plain tensors that hold the values."""
        storages = {storage._cdata: storage for part in self.parts for storage in [part.untyped_storage()]}
        sizes = {key: storage.nbytes() for key, storage in storages.items()}
        for part in self.parts:
            key = part.untyped_storage()._cdata
            sizes[key] = max(sizes[key], _bytes_of(part))
        self._storages = [(storage, sizes[key]) for key, storage in storages.items()]

    @property
    def bytes(self) -> int:
        """Its size while it is there."""
        return sum(size for _, size in self._storages)

    def allocate(self) -> None:
        """Gives the tensors memory, whose content is undefined where they had none."""
        for storage, size in self._storages:
            storage.resize_(size)

    def release(self) -> None:
        """Gives the memory back; the values are lost, and nobody may look at them."""
        for storage, _ in self._storages:
            storage.resize_(0)


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that hold a tensor's values on this rank, such as its shard."""
    if isinstance(tensor, DTensor):
        return plain_parts(tensor.to_local())
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in plain_parts(getattr(tensor, name))]
    return [tensor.detach()]


def _bytes_of(tensor: Tensor) -> int:
    return (int(tensor.storage_offset()) + tensor.numel()) * tensor.itemsize

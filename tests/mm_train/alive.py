"""What memory a training step really takes: the storages that are alive after each operation, by part."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):
    """Notes the most bytes that were alive of each part, and of all together, while it is on.

    Everything that operations made while it is on, and that is no weight, gradient or moment, is `others`:
    activations, the batch, and whole weights and gradients of FSDP2.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        super().__init__()
        self.most: dict[str, int] = {}
        self._parameters = _sharded(network)
        moments = [kept for state in optimizer.state.values() for kept in state.values()]
        self._states = {"parameters": _storages(self._parameters), "optimizer": _storages(moments)}
        self._made: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Carries an operation out, then looks, where it made something."""
        out, new = func(*args, **(kwargs or {})), False
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = _storage(tensor)
                key = storage._cdata
                if key not in self._made:
                    new = True
                    self._made[key] = weakref.ref(storage, self._forget(key))
        if new:
            self._look()
        return out

    def _forget(self, key: int) -> Any:
        return lambda _: self._made.pop(key, None)

    def _look(self) -> None:
        parts = {**self._states, "gradients": _storages(one.grad for one in self._parameters)}
        known = set().union(*parts.values())
        alive = [
            found
            for key, made in list(self._made.items())
            if key not in known and (found := made()) is not None
        ]
        bytes_of = {part: sum(sizes.values()) for part, sizes in parts.items()}
        bytes_of["others"] = sum(found.nbytes() for found in alive)
        bytes_of["total"] = sum(bytes_of.values())
        self.most = {part: max(size, self.most.get(part, 0)) for part, size in bytes_of.items()}


def _sharded(network: nn.Module) -> list[Tensor]:
    """The parameters as they are kept, also while FSDP2 has put whole ones in their place."""
    units = [one for one in network.modules() if isinstance(one, FSDPModule)]
    groups = [unit._get_fsdp_state()._fsdp_param_group for unit in units]
    if not units:
        return list(network.parameters())
    return [one.sharded_param for group in groups if group is not None for one in group.fsdp_params]


def _storages(tensors: Iterable[Tensor | None]) -> dict[int, int]:
    """The bytes of each storage, by its identity."""
    found = (_storage(one) for one in tensors if one is not None)
    return {storage._cdata: storage.nbytes() for storage in found}


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return (tensor._local_tensor if isinstance(tensor, DTensor) else tensor).untyped_storage()

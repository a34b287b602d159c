"""Counts the moments at which the host reads a number of a device, with the CPU in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

_READING = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}
_READING_OPS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero"}


class DeviceReads:
    """A context that counts reads of parameters, and of all that is computed from them.

    Numbers of the host, such as the drawn noise levels, may be read. What a tensor's methods read is seen by
    their name, since a list of a CPU's tensor is made without an operation; what else reads by its operation.
    """

    def __init__(self) -> None:
        self.reads: list[str] = []
        self._storages: dict[int, Any] = {}
        self._modes = (_Functions(self), _Operations(self))

    def __enter__(self) -> DeviceReads:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def taken(self) -> list[str]:
        """The reads since the last call."""
        found, self.reads = self.reads, []
        return found

    def on_device(self, tensor: Any) -> bool:
        if isinstance(tensor, nn.Parameter):
            return True
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self._storages

    def add(self, results: Any) -> None:
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                # Kept, so that no other storage takes its address.
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = storage


class _Functions(TorchFunctionMode):
    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READING and self._reads.on_device(args[0]):
            self._reads.reads.append(name)
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        derived = any(self._reads.on_device(one) for one in tree_leaves((args, kwargs or {})))
        if derived and func._schema.name in _READING_OPS:
            self._reads.reads.append(func._schema.name)
        results = func(*args, **(kwargs or {}))
        if derived:
            self._reads.add((args, results) if func._schema.is_mutable else results)
        return results

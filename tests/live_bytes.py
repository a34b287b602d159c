"""Counts the bytes of tensors that are alive at once."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made under it held at once; views of what is given hold none."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.held = {given.untyped_storage()._cdata: 0}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in (one for one in tree_leaves(made) if isinstance(one, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.held:
                self.held[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return made


def peak_of(work: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor) -> tuple[int, torch.Tensor]:
    """What computing took at its peak beside what it was given and what it gave."""
    with LiveBytes(given) as live:
        made = work(given)
    return live.peak - made.nbytes, made

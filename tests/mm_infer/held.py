"""What memory a generation really takes: the bytes of all tensors that are alive at once."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(TorchDispatchMode):
    """Notes the most bytes that tensors made while it is on held at once.

    Storages count as they are then: those of weights that wait have no bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._made: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Carries an operation out, then looks."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._made:
                    self._made[key] = weakref.ref(storage, lambda _, key=key: self._made.pop(key, None))
        self.most = max(self.most, self.now())
        return out

    def now(self) -> int:
        """The bytes that are held now."""
        alive = [made() for made in list(self._made.values())]
        return sum(one.nbytes() for one in alive if one is not None)

    def most_since(self) -> int:
        """The most bytes since this was asked last."""
        most, self.most = self.most, self.now()
        return most

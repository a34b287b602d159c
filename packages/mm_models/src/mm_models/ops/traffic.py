"""What one kernel per pass has to move: the tensors that an operation reads and writes.

The fused forms keep to it, as does a kernel that the compiler makes; the plain ones move more, once for each
of their steps. Tensors of a row per sample or of a number per token are left out where they are small beside
the stream.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class Traffic:
    """Tensors, or others of their size, that an operation moves."""

    forward: tuple[Tensor, ...]
    """Read and written by the forward pass."""
    backward: tuple[Tensor, ...]
    """Read and written by the backward pass."""

    @property
    def bytes(self) -> int:
        """Of both passes."""
        return bytes_of((*self.forward, *self.backward))


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of all of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

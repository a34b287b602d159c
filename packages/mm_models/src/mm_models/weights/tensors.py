"""Tensors on a disk, of which any part can be read without the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

Region = tuple[slice, ...]
"""One slice with bounds for each axis."""


def _nothing() -> None:
    """Of files that have no digests."""


@attrs.frozen
class Piece:
    """A rectangle of a tensor that lies in one place."""

    offsets: tuple[int, ...]
    """Where it begins in the whole tensor."""
    sizes: tuple[int, ...]
    """Its own shape."""
    copy: Callable[[Region, Tensor], None]
    """Copies a part of it, counted from its own beginning, into a tensor of that part's shape, of any dtype
    and on any device."""
    place: tuple[str, int] = ("", 0)
    """Its file and its offset there: pieces in this order are read one after another."""
    settle: Callable[[], None] = _nothing
    """Checks what of its file has been copied and not yet been checked."""


@attrs.frozen
class StoredTensor:
    """A tensor on a disk: its whole shape, and the pieces that make it."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    dtype: torch.dtype
    """As it is stored."""
    pieces: tuple[Piece, ...]
    """In any order; together they are the tensor."""
    quantised: str = ""
    """What becomes of values that lie in fewer bits than networks have, as it is said; empty for others."""

    @property
    def bytes(self) -> int:
        """Size of the whole tensor as it is stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether the pieces have as many values together as the shape."""
        return sum(math.prod(piece.sizes) for piece in self.pieces) == math.prod(self.shape)

    @property
    def place(self) -> tuple[str, int]:
        """Where its first piece lies."""
        return min((piece.place for piece in self.pieces), default=("", 0))

    def copy(self, region: Region, target: Tensor) -> None:
        """Copies a part of the tensor into one of that part's shape; only pieces that touch it are read.

        Raises:
            UserError: They can't be read, or are not what was written.
        """
        self.pour(region, target)
        self.settle()

    def settle(self) -> None:
        """Checks what was poured. Raises UserError where it is not what was written."""
        for piece in self.pieces:
            piece.settle()

    def pour(self, region: Region, target: Tensor) -> None:
        """As `copy`, but that the values hold once `settle` has been called: many tensors are checked in the
        pass that reads them, where each alone would need what lies around it."""
        for piece in self.pieces:
            if (shared := _shared(piece, region)) is not None:
                of_target, of_piece = shared
                piece.copy(of_piece, target[of_target])

    def read(self) -> Tensor:
        """All of the tensor, contiguous, on the CPU, in the stored dtype."""
        values = torch.empty(self.shape, dtype=self.dtype)
        self.copy(tuple(slice(0, size) for size in self.shape), values)
        return values


def in_memory(tensor: Tensor) -> StoredTensor:
    """A tensor that torch has mapped from a file, or one that is in memory."""

    def copy(region: Region, target: Tensor) -> None:
        target.copy_(tensor[region])

    piece = Piece((0,) * tensor.ndim, tuple(tensor.shape), copy)
    return StoredTensor(tuple(tensor.shape), tensor.dtype, (piece,))


def _shared(piece: Piece, region: Region) -> tuple[Region, Region] | None:
    """What a piece and a region have in common, counted from the region's beginning and the piece's."""
    target, source = [], []
    for offset, size, wanted in zip(piece.offsets, piece.sizes, region, strict=True):
        start, stop = max(offset, wanted.start), min(offset + size, wanted.stop)
        if start >= stop:
            return None
        target.append(slice(start - wanted.start, stop - wanted.start))
        source.append(slice(start - offset, stop - offset))
    return tuple(target), tuple(source)

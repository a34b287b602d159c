"""Tensors on a disk, of which any part can be read without the rest."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

Region = tuple[slice, ...]
"""One slice with bounds for each axis."""


@attrs.frozen
class Piece:
    """A rectangle of a tensor that lies in one place."""

    offsets: tuple[int, ...]
    """Where it begins in the whole tensor."""
    sizes: tuple[int, ...]
    """Its own shape."""
    read: Callable[[Region], Tensor]
    """Reads a part of it, counted from its own beginning; the tensor is on the CPU."""


@attrs.frozen
class StoredTensor:
    """A tensor on a disk: its whole shape, and the pieces that make it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[Piece, ...]

    @property
    def bytes(self) -> int:
        """Size of the whole tensor as it is stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether the pieces have as many values together as the shape."""
        return sum(math.prod(piece.sizes) for piece in self.pieces) == math.prod(self.shape)

    def read(self, region: Region | None = None) -> Tensor:
        """A part of the tensor, or all of it, in the stored dtype; only pieces that touch it are read."""
        region = tuple(slice(0, size) for size in self.shape) if region is None else region
        whole = next((piece for piece in self.pieces if piece.sizes == self.shape), None)
        if whole is not None:
            return whole.read(region)
        out = torch.empty([part.stop - part.start for part in region], dtype=self.dtype)
        for piece in self.pieces:
            if (shared := _shared(piece, region)) is not None:
                target, source = shared
                out[target] = piece.read(source)
        return out


def in_memory(tensor: Tensor) -> StoredTensor:
    """A tensor that torch has mapped from a file, or one that is in memory."""
    piece = Piece((0,) * tensor.ndim, tuple(tensor.shape), tensor.__getitem__)
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

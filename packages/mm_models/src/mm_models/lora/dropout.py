"""Dropout of adapters' inputs, decided by what a value is and not by when it is computed.

A generator of random numbers gives other masks when a batch is split, a step is computed again or a run goes
on elsewhere. Here a value's fate is a hash of (seed, step, place of the sample in the global batch, layer,
index of the value in the sample), by integer operations that every device has and a compiler fuses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
"""Of Wellons' `lowbias32` (2018), as 32-bit integers with a sign."""
WHOLE = (0, 1)
"""A layer's inputs that no other rank has a part of."""


@attrs.define(eq=False)
class Dropout:
    """Which values of the samples in hand are dropped."""

    share: float
    """Of the values."""
    keys_B2: Tensor | None = None
    """`[B, 2]` int32, for each sample of the micro-batch that is computed; None before the first."""

    def begin(self, seed: int, step: int, positions: Sequence[int], device: torch.device) -> None:
        """Names the samples of the next pass; its backward pass, which may compute it again, belongs to it.

        Args:
            seed: Of the training.
            step: Counted from 0.
            positions: Places of the samples in the global batch.
            device: Where they are computed.
        """
        keys = [_key(seed, step, position, "adapter dropout") for position in positions]
        self.keys_B2 = torch.tensor(keys, dtype=torch.int32).to(device, non_blocking=True)

    def __call__(
        self, x_BX: Tensor, layer: tuple[int, int], part: tuple[int, int] = WHOLE, first: int = 0
    ) -> Tensor:
        """The input of a layer with a share of its values zero and all others larger by as much.

        Args:
            x_BX: `[B, ..., F]`, the samples' own values.
            layer: The layer's part of the key, as `key_of_layer` gives it.
            part: Which part of the layer's inputs these F are, and of how many equal ones.
            first: Rows of a sample that stand before these, on other ranks.
        """
        keys_B2 = self.keys_B2
        assert keys_B2 is not None, "samples have to be named before a pass with dropout"
        assert len(x_BX) == len(keys_B2), f"{len(x_BX)} rows are not the {len(keys_B2)} samples"
        width = x_BX.shape[-1]
        index_F = torch.arange(width, dtype=torch.int32, device=x_BX.device) + part[0] * width
        rows_R1 = torch.arange(x_BX[0].numel() // width, dtype=torch.int32, device=x_BX.device)[:, None]
        index_N = ((rows_R1 + first) * (width * part[1]) + index_F).flatten()
        kept_BX = kept(keys_B2, layer, index_N, self.share).view(x_BX.shape)
        return x_BX * kept_BX * (1 / (1 - self.share))


def kept(keys_B2: Tensor, layer: tuple[int, int], index_N: Tensor, share: float) -> Tensor:
    """`[B, N]` bool: which values stay, of those with int32 indices in a whole sample."""
    x_BN = _mixed(index_N ^ (keys_B2[:, :1] ^ layer[0]))
    x_BN = _mixed(x_BN ^ (keys_B2[:, 1:] ^ layer[1]))
    return x_BN >= round(share * 2**32) - 2**31


def key_of_layer(name: str) -> tuple[int, int]:
    """A layer's part of the key."""
    return _key(name)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers of which every output bit depends on all of them."""
    x = (x ^ _shifted(x, 16)) * _FIRST
    x = (x ^ _shifted(x, 15)) * _SECOND
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, filled with zeros; torch fills with the sign."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _key(*parts: int | str) -> tuple[int, int]:
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big", signed=True), int.from_bytes(digest[4:], "big", signed=True)

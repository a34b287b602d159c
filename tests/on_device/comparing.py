"""Two places where the same is computed, and how far the outcomes are apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from torch import Tensor

from mm_models.ops.choosing import REFERENCE, Ops, choose

CPU = torch.device("cpu")
FLOAT32, BFLOAT16 = 1e-4, 0.02
"""Largest differences, as shares of the largest value: other orders of summation, and roundings to 8 bits."""
Outputs = dict[str, Tensor]


@attrs.frozen
class Place:
    """Where something is computed."""

    device: torch.device
    folder: Path
    """For files; empty at first, and the same for all that is computed at one place."""
    expected: bool = False
    """Whether this is the CPU that the device is compared with: operations are then the reference ones."""

    def ops(self, dtype: torch.dtype) -> Ops:
        """The operations' forms."""
        return REFERENCE if self.expected else choose(self.device, dtype=dtype)


@attrs.frozen
class DeviceCheck:
    """One thing that has to come out as on the CPU."""

    name: str
    about: str
    compute: Callable[[Place], Outputs]
    tolerance: float = FLOAT32
    ranks: int = 1
    """Devices that it needs."""


def worst(actual: Outputs, expected: Outputs) -> tuple[float, str]:
    """The largest difference as a share of the largest value of its tensor, and which tensor it is in.

    A tensor of another shape, or one that is not finite, is infinitely far off.
    """
    assert actual.keys() == expected.keys()
    return max((_difference(actual[name], expected[name]), name) for name in expected)


def _difference(actual: Tensor, expected: Tensor) -> float:
    finite = bool(actual.isfinite().all()) and bool(expected.isfinite().all())
    if actual.shape != expected.shape or not finite:
        return float("inf")
    wide, reference = actual.detach().double().cpu(), expected.detach().double().cpu()
    return float((wide - reference).abs().max() / reference.abs().max())

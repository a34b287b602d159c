"""How far results of the device may be from the CPU's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

TOLERANCE = 1e-6
"""Float32 sums in another order differ by this share of the largest value."""


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Fails unless the largest difference is at most the tolerance times the largest value."""
    assert_all_equal({"it": actual}, {"it": expected})


def assert_all_equal(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> None:
    """Compares tensors by name, all by the largest value of any, which is what errors come from."""
    assert actual.keys() == expected.keys()
    scale = max(one.abs().max().item() for one in expected.values())
    assert scale > 0
    for name, one in expected.items():
        found = actual[name]
        assert found.shape == one.shape and found.dtype == one.dtype, name
        error = (found.cpu().double() - one.cpu().double()).abs().max().item()
        assert error <= tolerance * scale, f"{name}: off by {error:.1e}, of values up to {scale:.1e}"


def on_device(tensors: Iterable[Tensor], device: torch.device) -> list[Tensor]:
    """Copies on a device."""
    return [one.to(device) for one in tensors]

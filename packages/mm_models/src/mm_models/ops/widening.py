"""The format that operations compute in."""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """As float32 where it is narrower; float64, in which gradients are checked, stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

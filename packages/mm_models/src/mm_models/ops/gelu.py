"""GELU in its exact form, x Phi(x); most layers of diffusion transformers take its tanh form instead."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_models.ops.widening import widened


def exact(x: Tensor) -> Tensor:
    """x Phi(x), in x's dtype."""
    # Ascend's kernel computes the tanh form, whichever of the two is asked for.
    return by_erf(x) if x.device.type == "npu" else F.gelu(x)


def by_erf(x: Tensor) -> Tensor:
    """The definition, in float32."""
    wide = widened(x)
    return (wide * (0.5 + 0.5 * torch.erf(wide / math.sqrt(2)))).type_as(x)


class ExactGelu(nn.Module):
    """`exact` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps shape and dtype."""
        return exact(x)

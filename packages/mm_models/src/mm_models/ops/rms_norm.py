"""Root-mean-square norm over the last axis."""

import torch
from torch import Tensor

from mm_models.ops.widening import widened


def reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, in float32; the result has x's dtype.

    Args:
        x: `[..., D]`.
        weight: `[D]`.
        eps: Added to the mean of squares.
    """
    wide = widened(x)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * widened(weight)).type_as(x)


def npu(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Ascend's fused norm; the weight may be of x's dtype or wider."""
    wide_enough = weight.to(torch.promote_types(weight.dtype, x.dtype))
    return torch.ops.npu.npu_rms_norm(x, wide_enough, eps)[0].type_as(x)

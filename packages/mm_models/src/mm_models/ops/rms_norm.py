"""Root-mean-square norm over the last axis."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from mm_models.ops.chunks import chunks
from mm_models.ops.compiling import as_kernel
from mm_models.ops.traffic import Traffic
from mm_models.ops.widening import widened


def reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, in float32; the result has x's dtype.

    Args:
        x: `[..., D]`.
        weight: `[D]`.
        eps: Added to the mean of squares.
    """
    return _scaled(x, weight, _mean_square(x), eps)


def compiled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`reference` as a compiled kernel."""
    return as_kernel(reference, x, weight, eps)


def fused(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """A step of tokens at a time, for CPUs; keeps x and a number per token for the backward pass."""
    if torch.compiler.is_compiling():
        return reference(x, weight, eps)
    return _Fused.apply(x, weight, eps)  # type: ignore[no-any-return]


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        x_ND, wide_weight = x.reshape(-1, width), widened(weight)
        out_ND = torch.empty_like(x_ND)
        scale_N1 = torch.empty(len(x_ND), 1, dtype=wide_weight.dtype, device=x.device)
        for part in chunks(*x_ND.shape):
            wide = widened(x_ND[part])
            norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            scale_N1[part] = norm.square_().div_(width).add_(eps).rsqrt_()
            if wide.dtype == out_ND.dtype:
                torch.mul(wide, scale_N1[part], out=out_ND[part]).mul_(wide_weight)
            else:
                out_ND[part] = wide.mul_(scale_N1[part]).mul_(wide_weight)  # A copy already.
        ctx.save_for_backward(x, weight, scale_N1)
        return out_ND.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale_N1 = ctx.saved_tensors
        width = x.shape[-1]
        x_ND, gradient_ND, wide_weight = x.reshape(-1, width), gradient.reshape(-1, width), widened(weight)
        of_x, of_weight = torch.empty_like(x_ND), torch.zeros_like(wide_weight)
        for part in chunks(*x_ND.shape):
            wide, scale, wide_gradient = widened(x_ND[part]), scale_N1[part], widened(gradient_ND[part])
            product = wide * wide_gradient
            of_weight.addmv_(product.T, scale[:, 0])
            # The scale falls as x grows, by scale^3 x / width.
            along = (product @ wide_weight).unsqueeze(1).mul_(scale**3 / width)
            of_x[part] = (wide_gradient * wide_weight).mul_(scale).addcmul_(wide, along, value=-1)
        return of_x.view_as(x), of_weight.type_as(weight), None


def of_parts(x: Tensor, weight: Tensor, eps: float, mean_of_all: Callable[[Tensor], Tensor]) -> Tensor:
    """`reference` of a part of what is normed together.

    Args:
        x: `[..., D / parts]`, all parts equally large.
        weight: `[D / parts]`.
        eps: Added to the mean of squares.
        mean_of_all: The mean over all parts of what each has, differentiable.
    """
    if x.is_cuda:
        return as_kernel(_scaled, x, weight, mean_of_all(as_kernel(_mean_square, x)), eps)
    return _scaled(x, weight, mean_of_all(_mean_square(x)), eps)


def _mean_square(x: Tensor) -> Tensor:
    return widened(x).square().mean(-1, keepdim=True)


def _scaled(x: Tensor, weight: Tensor, mean_square: Tensor, eps: float) -> Tensor:
    return (widened(x) * torch.rsqrt(mean_square + eps) * widened(weight)).type_as(x)


def npu(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Ascend's fused norm; the weight may be of x's dtype or wider."""
    wide_enough = weight.to(torch.promote_types(weight.dtype, x.dtype))
    return torch.ops.npu.npu_rms_norm(x, wide_enough, eps)[0].type_as(x)


def traffic(x: Tensor, weight: Tensor, eps: float) -> Traffic:
    """What a kernel moves: backward reads the gradient, x and the weight, and writes both gradients."""
    return Traffic(forward=(x, weight, x), backward=(x, x, weight, x, weight))

"""What Ascend's fused operators compute, on CPU tensors: plain functions with the operators' own arguments.

The schema tier runs them behind the operators' schemas, the stand-in behind torch_npu itself. They compute in
float32 and refuse what the operators' documentation rules out, and what nothing here calls for: an argument
that a reference ignored would make a wrong call look right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.npu_attention import (
    FLOATS,
    npu_fusion_attention,
    npu_fusion_attention_grad,
    npu_fusion_attention_grad_v3,
    npu_fusion_attention_v3,
    refuse,
)


def npu_rms_norm(input: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The norm over gamma's axes, in the input's format, and 1 / root mean square in float32."""
    if input.dtype not in FLOATS or gamma.dtype not in (input.dtype, torch.float32):
        raise TypeError(f"rms norm of {input.dtype} with gamma of {gamma.dtype}")
    axes = _axes(input, gamma)
    x = input.float()
    rstd = torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon)
    return (x * rstd * gamma.float()).to(input.dtype), rstd


def npu_rms_norm_backward(dy: Tensor, input: Tensor, gamma: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input, and of gamma in float32 or gamma's format."""
    axes = _axes(input, gamma)
    d_out, normed = dy.float(), input.float() * rstd
    d_normed = d_out * gamma.float()
    d_input = rstd * (d_normed - normed * (d_normed * normed).mean(axes, keepdim=True))
    d_gamma = (d_out * normed).reshape(-1, *gamma.shape).sum(0)
    return d_input.to(input.dtype), d_gamma.to(gamma.dtype)


def _axes(input: Tensor, gamma: Tensor) -> tuple[int, ...]:
    if not 2 <= input.ndim <= 8 or tuple(gamma.shape) != tuple(input.shape[-gamma.ndim :]):
        raise ValueError(f"gamma of {tuple(gamma.shape)} does not end {tuple(input.shape)}, of 2 to 8 axes")
    return tuple(range(-gamma.ndim, 0))


def npu_rotary_mul(
    input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half", rotate: Tensor | None = None
) -> Tensor:
    """input * cosine + turned input * sine; pairs are halves, or neighbours in the mode `interleave`."""
    refuse(rotate)
    _check_rotary(input, r1, r2, rotary_mode)
    return (input.float() * r1.float() + turned(input.float(), rotary_mode) * r2.float()).to(input.dtype)


def npu_rotary_mul_backward(
    grad: Tensor, input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half"
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, the cosines and the sines."""
    _check_rotary(input, r1, r2, rotary_mode)
    d_out, x = grad.float(), input.float()
    # Turning is a rotation by a right angle, so its transpose turns the other way.
    d_input = d_out * r1.float() - turned(d_out * r2.float(), rotary_mode)
    d_cosine = (d_out * x).sum_to_size(r1.shape)
    d_sine = (d_out * turned(x, rotary_mode)).sum_to_size(r2.shape)
    return d_input.to(input.dtype), d_cosine.to(r1.dtype), d_sine.to(r2.dtype)


def turned(x: Tensor, rotary_mode: str) -> Tensor:
    """(a, b) -> (-b, a) of each pair."""
    if rotary_mode == "half":
        first, second = x.chunk(2, -1)
        return torch.cat((-second, first), -1)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((-second, first), -1).flatten(-2)


def _check_rotary(input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str) -> None:
    if rotary_mode not in ("half", "interleave"):
        raise ValueError(f"rotary_mode {rotary_mode!r}")
    if len({input.dtype, r1.dtype, r2.dtype}) > 1 or input.dtype not in FLOATS:
        raise TypeError(f"rotation of {input.dtype} by {r1.dtype} and {r2.dtype}")
    width = input.shape[-1]
    if input.ndim != 4 or width % 2 or width >= 896 or r1.shape != r2.shape:
        raise ValueError(f"rotation of {tuple(input.shape)} by {tuple(r1.shape)} and {tuple(r2.shape)}")
    if max(float(table.detach().abs().max()) for table in (r1, r2)) > 1:
        raise ValueError("cosines and sines lie in [-1, 1]")
    batch, second, third, _ = input.shape
    by_layout = {(1, second, 1, width): third, (1, 1, third, width): second}
    if rotary_mode == "interleave":
        heads = by_layout.get(tuple(r1.shape))  # type: ignore[call-overload]
        if heads is None:
            raise ValueError(f"interleave takes [1, S, 1, D] or [1, 1, S, D], got {tuple(r1.shape)}")
        if batch * heads >= 1000:
            raise ValueError(f"interleave takes fewer than 1000 heads of samples, got {batch * heads}")


REFERENCES: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        npu_fusion_attention,
        npu_fusion_attention_v3,
        npu_fusion_attention_grad,
        npu_rms_norm,
        npu_rms_norm_backward,
        npu_rotary_mul,
        npu_rotary_mul_backward,
    )
} | {"npu_fusion_attention_grad_v3": npu_fusion_attention_grad_v3}
"""Every reference by its operator's name; an operator that is not here has none, and nothing may call it."""

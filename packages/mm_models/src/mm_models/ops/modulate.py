"""Adaptive layer norm: the timestep scales and shifts what is normed.

Shifts and scales are float32 rows `[U, D]`: one per sample, or one per distinct timestep with the row of each
token. A row is spread over its tokens only where it is used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from mm_models.ops.chunks import RowChunk, row_chunks
from mm_models.ops.compiling import as_kernel
from mm_models.ops.traffic import Traffic
from mm_models.ops.widening import widened


def reference(
    x_BSD: Tensor,
    shift_UD: Tensor,
    scale_UD: Tensor,
    eps: float,
    rows_BS: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, in float32.

    Args:
        x_BSD: The residual stream.
        shift_UD: Float32 rows.
        scale_UD: Float32 rows.
        eps: Of the norm.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
        dtype: Of the result; None takes x's.
    """
    normed = F.layer_norm(widened(x_BSD), x_BSD.shape[-1:], eps=eps)
    wide = torch.addcmul(spread(shift_UD, rows_BS), normed, spread(1 + scale_UD, rows_BS))
    return wide.to(dtype or x_BSD.dtype)


def spread(row_UD: Tensor, rows_BS: Tensor | None) -> Tensor:
    """`[U, D]` -> `[B, 1, D]`, or each token's row as `[B, S, D]`."""
    return row_UD.unsqueeze(1) if rows_BS is None else row_UD[rows_BS]


def compiled(
    x_BSD: Tensor,
    shift_UD: Tensor,
    scale_UD: Tensor,
    eps: float,
    rows_BS: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`reference` as a compiled kernel."""
    return as_kernel(reference, x_BSD, shift_UD, scale_UD, eps, rows_BS, dtype)


def fused(
    x_BSD: Tensor,
    shift_UD: Tensor,
    scale_UD: Tensor,
    eps: float,
    rows_BS: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A step of tokens at a time, for CPUs; keeps x and two numbers per token for the backward pass."""
    parts = None if torch.compiler.is_compiling() else row_chunks(x_BSD, rows_BS)
    if parts is None:
        return reference(x_BSD, shift_UD, scale_UD, eps, rows_BS, dtype)
    return _Fused.apply(x_BSD, shift_UD, scale_UD, eps, parts, dtype)  # type: ignore[no-any-return]


class _Fused(Function):
    """To the kernel of layer norm, tokens that share a row are tokens under one weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        shift_UD: Tensor,
        scale_UD: Tensor,
        eps: float,
        parts: list[RowChunk],
        dtype: torch.dtype | None,
    ) -> Tensor:
        x_ND, gain_UD = x_BSD.flatten(0, 1), 1 + scale_UD
        width = x_ND.shape[1]
        first = parts[0][0]
        if x_ND.dtype == gain_UD.dtype == (dtype or x_ND.dtype) and all(row == first for row, _ in parts):
            # Nothing to widen and one row for all: the kernel writes the result itself.
            out_ND, mean_N1, rstd_N1 = torch.native_layer_norm(
                x_ND, [width], gain_UD[first], shift_UD[first], eps
            )
        else:
            out_ND = torch.empty_like(x_ND, dtype=dtype)
            mean_N1, rstd_N1 = gain_UD.new_empty(2, len(x_ND), 1)
            for row, part in parts:
                out_ND[part], mean_N1[part], rstd_N1[part] = torch.native_layer_norm(
                    widened(x_ND[part]), [width], gain_UD[row], shift_UD[row], eps
                )
        ctx.save_for_backward(x_BSD, gain_UD, mean_N1, rstd_N1)
        ctx.parts = parts
        return out_ND.view_as(x_BSD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x_BSD, gain_UD, mean_N1, rstd_N1 = ctx.saved_tensors
        x_ND, gradient_ND = x_BSD.flatten(0, 1), gradient_BSD.flatten(0, 1)
        of_x, of_shift, of_scale = (
            torch.empty_like(x_ND),
            torch.zeros_like(gain_UD),
            torch.zeros_like(gain_UD),
        )
        for row, part in ctx.parts:
            # In float32 throughout: given bfloat16, the kernel would sum a row's gradient in bfloat16.
            of_x[part], of_gain, of_bias = torch.ops.aten.native_layer_norm_backward(
                widened(gradient_ND[part]),
                widened(x_ND[part]),
                [x_ND.shape[1]],
                mean_N1[part],
                rstd_N1[part],
                gain_UD[row],
                gain_UD[row],
                [True, True, True],
            )
            of_scale[row] += of_gain
            of_shift[row] += of_bias
        return of_x.view_as(x_BSD), of_shift, of_scale, None, None, None


def traffic(
    x_BSD: Tensor,
    shift_UD: Tensor,
    scale_UD: Tensor,
    eps: float,
    rows_BS: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Traffic:
    """What a kernel moves: backward reads the gradient and x, and writes the gradients of all three."""
    out_BSD = torch.empty_like(x_BSD, dtype=dtype, device="meta")
    rows = () if rows_BS is None else (rows_BS,)
    return Traffic(
        forward=(x_BSD, shift_UD, scale_UD, *rows, out_BSD),
        backward=(out_BSD, x_BSD, scale_UD, *rows, x_BSD, shift_UD, scale_UD),
    )

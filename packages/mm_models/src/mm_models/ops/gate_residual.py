"""A residual branch, gated by the timestep."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from mm_models.ops.chunks import RowChunk, row_chunks
from mm_models.ops.compiling import as_kernel
from mm_models.ops.modulate import spread
from mm_models.ops.traffic import Traffic
from mm_models.ops.widening import widened


def reference(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Tensor:
    """x + gate * branch, in float32; the result has x's dtype.

    Args:
        x_BSD: The residual stream.
        branch_BSD: What a layer adds to it.
        gate_UD: Float32 rows, as in `modulate`.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
    """
    return torch.addcmul(widened(x_BSD), widened(branch_BSD), spread(gate_UD, rows_BS)).type_as(x_BSD)


def compiled(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Tensor:
    """`reference` as a compiled kernel."""
    return as_kernel(reference, x_BSD, branch_BSD, gate_UD, rows_BS)


def fused(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Tensor:
    """A step of tokens at a time, for CPUs; keeps the branch alone for the backward pass."""
    parts = None if torch.compiler.is_compiling() else row_chunks(x_BSD, rows_BS)
    if parts is None:
        return reference(x_BSD, branch_BSD, gate_UD, rows_BS)
    return _Fused.apply(x_BSD, branch_BSD, gate_UD, parts)  # type: ignore[no-any-return]


class _Fused(Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, parts: list[RowChunk]
    ) -> Tensor:
        x_ND, branch_ND = x_BSD.flatten(0, 1), branch_BSD.flatten(0, 1)
        out_ND = torch.empty_like(x_ND)
        for row, part in parts:
            wide, branch = widened(x_ND[part]), widened(branch_ND[part])
            if wide.dtype == branch.dtype == gate_UD.dtype == out_ND.dtype:
                torch.addcmul(wide, branch, gate_UD[row], out=out_ND[part])
            else:
                out_ND[part] = torch.addcmul(wide, branch, gate_UD[row])
        ctx.save_for_backward(branch_BSD, gate_UD)
        ctx.parts = parts
        return out_ND.view_as(x_BSD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        branch_BSD, gate_UD = ctx.saved_tensors
        branch_ND, gradient_ND = branch_BSD.flatten(0, 1), gradient_BSD.flatten(0, 1)
        of_branch, of_gate = torch.empty_like(branch_ND), torch.zeros_like(gate_UD)
        for row, part in ctx.parts:
            wide = widened(gradient_ND[part])
            of_branch[part] = wide * gate_UD[row]
            of_gate[row] += (wide * widened(branch_ND[part])).sum(0)
        return gradient_BSD, of_branch.view_as(branch_BSD), of_gate, None


def traffic(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Traffic:
    """What a kernel moves: backward reads the gradient, which is x's too, and writes the branch's."""
    of_gate = (gate_UD,) if rows_BS is None else (gate_UD, rows_BS)
    return Traffic(
        forward=(x_BSD, branch_BSD, *of_gate, x_BSD),
        backward=(x_BSD, branch_BSD, *of_gate, branch_BSD, gate_UD),
    )

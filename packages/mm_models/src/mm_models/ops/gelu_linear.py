"""A linear layer after GELU that keeps GELU's input alone for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable


def gelu_linear(hidden: Tensor, activation: nn.GELU, layer: nn.Linear) -> Tensor:
    """`layer(activation(hidden))`; the backward pass computes the activation again instead of keeping it.

    Under a compiler, which decides this itself, and where more than the layer's matrix product is called for
    (an adapter's hook, a sharding unit, a recompute or a format of its own), both modules are called.
    """
    known = hidden.device.type in ("cpu", "cuda") and layer.weight.dtype == hidden.dtype
    if torch.compiler.is_compiling() or not known or not _is_bare(layer):
        return layer(activation(hidden))
    return _GeluLinear.apply(hidden, layer.weight, layer.bias, activation.approximate)  # type: ignore[no-any-return]


def _is_bare(layer: nn.Linear) -> bool:
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return type(layer) is nn.Linear and "forward" not in vars(layer) and not any(hooks)


class _GeluLinear(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.approximate = approximate
        return F.linear(F.gelu(hidden, approximate=approximate), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        hidden, weight = ctx.saved_tensors
        hidden_NF, gradient_NO = hidden.flatten(0, -2), gradient.flatten(0, -2)
        of_weight = of_bias = None
        # The widest tensor of a block: the activation, its gradient and its input's take turns in one.
        wide_NF = torch.empty_like(hidden_NF)
        if ctx.needs_input_grad[1]:
            torch.ops.aten.gelu.out(hidden_NF, approximate=ctx.approximate, out=wide_NF)
            of_weight = gradient_NO.T @ wide_NF
        if ctx.needs_input_grad[2]:
            of_bias = gradient_NO.sum(0)
        torch.mm(gradient_NO, weight, out=wide_NF)
        torch.ops.aten.gelu_backward.grad_input(
            wide_NF, hidden_NF, approximate=ctx.approximate, grad_input=wide_NF
        )
        return wide_NF.view_as(hidden), of_weight, of_bias, None

"""A linear layer after GELU in its tanh form that keeps GELU's input alone for the backward pass."""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

_KINDS = ("cpu", "cuda")


def gelu_linear(hidden: Tensor, layer: nn.Module) -> Tensor:
    """`layer(gelu(hidden))` in GELU's tanh form; the backward pass computes it again instead of keeping it.

    Under a compiler, which decides this itself, and where more than the layer's matrix product is called for
    (an adapter's hook, a sharding unit, a recompute or a format of its own), the layer is called. One that
    ranks share says as `after_gelu(hidden)` how it is computed so. Where no gradients are asked for, the
    activation takes the hidden values' place: nobody else may hold these.
    """
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling()) and hidden.device.type in _KINDS:
        return layer(torch.ops.aten.gelu_(hidden, approximate="tanh"))
    if not torch.compiler.is_compiling() and _is_bare(layer) and _takes(layer, hidden):
        if (of_ranks := getattr(layer, "after_gelu", None)) is not None:
            return of_ranks(hidden)  # type: ignore[no-any-return]
        if "forward" not in vars(layer):
            return product(hidden, layer.weight, layer.bias)
    return layer(F.gelu(hidden, approximate="tanh"))


def product(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`gelu(hidden) weight^T + bias`, of which the hidden values are kept alone."""
    return _GeluLinear.apply(hidden, weight, bias)  # type: ignore[no-any-return]


def _is_bare(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether nothing is called with the layer."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return type(layer) is nn.Linear and not any(hooks)


def _takes(layer: nn.Linear, hidden: Tensor) -> bool:
    return hidden.device.type in _KINDS and layer.weight.dtype == hidden.dtype


class _GeluLinear(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden, approximate="tanh"), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        hidden_NF, gradient_NO = hidden.flatten(0, -2), gradient.flatten(0, -2)
        of_weight = of_bias = None
        # The widest tensor of a block: the activation, its gradient and its input's take turns in one.
        wide_NF = torch.empty_like(hidden_NF)
        if ctx.needs_input_grad[1]:
            torch.ops.aten.gelu.out(hidden_NF, approximate="tanh", out=wide_NF)
            of_weight = gradient_NO.T @ wide_NF
        if ctx.needs_input_grad[2]:
            of_bias = gradient_NO.sum(0)
        torch.mm(gradient_NO, weight, out=wide_NF)
        torch.ops.aten.gelu_backward.grad_input(wide_NF, hidden_NF, approximate="tanh", grad_input=wide_NF)
        return wide_NF.view_as(hidden), of_weight, of_bias

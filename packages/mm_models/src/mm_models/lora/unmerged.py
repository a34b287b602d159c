"""Adapters beside layers, computed in each pass.

An adapted layer keeps its class, its name and its parameters, and gets children. So the names of the
network's weights stay, and those of the adapters are `blocks.0.attn1.to_q.lora_A.weight`, as PEFT and
diffusers write them. Forward hooks add to the layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from mm_config.schema import UserError
from mm_models.lora.adapter import Addition, LowRank
from mm_models.lora.dropout import WHOLE, Dropout
from mm_models.lora.fitting import changed_shapes, fit_problems
from mm_models.lora.merging import change_of
from mm_models.ops.layers import InputLinear

_CHILDREN = ("lora_A", "lora_B", "lora_gain", "lora_difference")
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Their output is linear in their weight, so what is added to it can be computed beside it."""


@attrs.frozen(eq=False)
class Attached:
    """Layers of a network that have adapters beside them."""

    network: nn.Module
    """Whose layers they are."""
    handles: Mapping[str, Sequence[Any]]
    """What takes each layer's hooks off, by the layer's name."""
    replaced: Mapping[str, Tensor] = attrs.field(factory=dict)
    """What parameters that are no matrices were before their differences were added, by name."""
    dropout: Dropout | None = None
    """What drops a share of the adapters' input in training; whoever trains names the samples to it."""

    @torch.no_grad()
    def detach(self) -> None:
        """Makes the network what it was, bit for bit."""
        for name, handles in self.handles.items():
            layer = self.network.get_submodule(name)
            for handle in handles:
                handle.remove()
            for child in _CHILDREN:
                if hasattr(layer, child):
                    delattr(layer, child)
        for name, value in self.replaced.items():
            self.network.get_parameter(name).copy_(value)


@torch.no_grad()
def attach(network: nn.Module, additions: Sequence[Addition], *, where: str = "adapter") -> Attached:
    """Puts adapters beside a network's layers, which must have their weights.

    Matrices of one linear layer are joined along their ranks; scale and strength are in the second one. What
    else changes the weight of a linear layer or of a convolution stands whole beside it. Biases, norms and
    tables have no product to stand beside: their differences are added to them until `detach`. All have the
    dtype of the parameter that they change and lie on its device.

    Raises:
        UserError: An adapter matches nothing or doesn't fit; nothing is attached then.
    """
    parameters = dict(network.named_parameters())
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    if problems := [one for addition in additions for one in fit_problems(addition.adapter, shapes, where)]:
        raise UserError(problems)
    handles: dict[str, Sequence[Any]] = {}
    replaced: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for addition in additions for name in changed_shapes(addition.adapter)):
        module = name.rpartition(".")[0]
        layer = network.get_submodule(module)
        if stands_beside(network, name):
            handles[module] = _beside(layer, module, additions)
        else:
            parameter = parameters[name]
            replaced[name] = parameter.clone()
            parameter.copy_(change_of(additions, name, parameter).add_(parameter))
    return Attached(network, handles, replaced)


def stands_beside(network: nn.Module, name: str) -> bool:
    """Whether an adapter's change of a parameter is computed beside it; else `attach` adds it."""
    module, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(network.get_submodule(module), _LAYERS)


def linear_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """A network's linear layers by name; adapters' own are none of them."""
    own = tuple(f".{child}" for child in _CHILDREN)
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not f".{name}".endswith(own)
    }


def adapt(
    layer: nn.Linear,
    rank: int,
    scale: float,
    dtype: torch.dtype,
    drop: Callable[..., Tensor] | None = None,
) -> Any:
    """Puts an adapter of NaNs beside a layer, whose input `drop` thins out in training.

    Returns:
        The handle of its hook.
    """
    assert not hasattr(layer, "lora_A"), "the layer has an adapter beside it already"
    layer.lora_A = _unfilled(layer.in_features, rank, layer.weight.device, dtype)
    layer.lora_B = _unfilled(rank, layer.out_features, layer.weight.device, dtype)
    return layer.register_forward_hook(partial(_add_product, scale=scale, drop=drop))


def _beside(layer: Any, name: str, additions: Sequence[Addition]) -> list[Any]:
    """Puts all changes of a layer's weight beside it; returns the handles of the hooks."""
    products: list[tuple[LowRank, float]] = []
    whole: list[Tensor] = []
    for strength, adapter in ((one.strength, one.adapter) for one in additions):
        if (low := adapter.layers.get(name)) is not None:
            if isinstance(layer, nn.Linear) and not low.by_columns:
                products.append((low, strength))
            else:
                whole.append(low.change(strength, layer.weight))
        if (difference := adapter.differences.get(f"{name}.weight")) is not None:
            whole.append(strength * difference.to(layer.weight.device, torch.float32))
    handles: list[Any] = []
    twin = _twin(layer, sum(whole[1:], whole[0])) if whole else None  # A copy of the layer without children.
    if products:
        device, dtype = layer.weight.device, layer.weight.dtype
        down = torch.cat([low.down.to(device, torch.float32) for low, _ in products])
        ups = [low.up.to(device, torch.float32) * (strength * low.scale) for low, strength in products]
        gain = torch.zeros(layer.out_features, 1, device=device)
        for index, (low, strength) in enumerate(products):
            if low.magnitude is not None:
                ratio = low.ratio(layer.weight)
                ups[index] *= ratio
                gain += strength * (ratio - 1)
        if any(low.magnitude is not None for low, _ in products):
            layer.register_buffer("lora_gain", gain.flatten().to(dtype), persistent=False)
            handles.append(layer.register_forward_hook(_scale_rows))
        handles.append(adapt(layer, len(down), 1.0, dtype))
        for child, values in (("lora_A.weight", down), ("lora_B.weight", torch.cat(ups, 1))):
            layer.get_parameter(child).requires_grad_(False).copy_(values)
    if twin is not None:
        layer.lora_difference = twin
        handles.append(layer.register_forward_hook(_add_difference))
    return handles


def _twin(layer: Any, weight: Tensor) -> Any:
    """A layer of the same class with another weight and no bias."""
    twin = deepcopy(layer)
    twin.weight, twin.bias = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False), None
    return twin


def _unfilled(width: int, out: int, device: torch.device, dtype: torch.dtype) -> nn.Linear:
    # On meta first: a layer that is made elsewhere draws from the stream that all share.
    layer = InputLinear(width, out, bias=False, device="meta", dtype=dtype).to_empty(device=device)
    nn.init.constant_(layer.weight, torch.nan)
    return layer


def _add_product(
    layer: Any,
    inputs: tuple[Tensor, ...],
    output: Tensor,
    scale: float,
    drop: Callable[..., Tensor] | None,
) -> Tensor:
    """`output + scale * up(down(dropout(input)))`, in the dtype of the layer's output."""
    x = inputs[0].to(output.dtype)
    if drop is not None and layer.training:
        context = getattr(layer, "context", None)
        first = 0 if context is None else context.first
        x = drop(x, part=getattr(layer, "lora_part", WHOLE), first=first)
    return output + scale * layer.lora_B(layer.lora_A(x))


def _scale_rows(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """What DoRA's ratios add to the layer's own product, which its bias is no part of."""
    product = output if layer.bias is None else output - layer.bias
    return output + (layer.lora_gain * product).to(output.dtype)


def _add_difference(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.lora_difference(inputs[0])

"""Adapters beside linear layers, computed in each pass.

An adapted layer keeps its class, its name and its parameters, and gets two children. So the names of the
network's weights stay, and those of the adapters are `blocks.0.attn1.to_q.lora_A.weight`, as PEFT and
diffusers write them. A forward hook adds the product to the layer's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_config.schema import Problem, UserError
from mm_models.lora.adapter import Addition
from mm_models.lora.fitting import fit_problems


@attrs.frozen(eq=False)
class Attached:
    """Layers of a network that have adapters beside them."""

    network: nn.Module
    """Whose layers they are."""
    handles: Mapping[str, Any]
    """What takes each layer's hook off, by the layer's name."""

    def detach(self) -> None:
        """Makes the network what it was; its own parameters were never touched."""
        for name, handle in self.handles.items():
            handle.remove()
            layer = self.network.get_submodule(name)
            del layer.lora_A, layer.lora_B


def attach(network: nn.Module, additions: Sequence[Addition], *, where: str = "adapter") -> Attached:
    """Puts adapters beside a network's layers; those of one layer are joined along their ranks.

    Their matrices have the dtype of the layer's weight and lie on its device; scale and strength are in the
    second one.

    Raises:
        UserError: An adapter matches nothing, doesn't fit, or changes more than linear layers; nothing is
            attached then.
    """
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    problems = [one for addition in additions for one in fit_problems(addition.adapter, shapes, where)]
    linear = linear_layers(network)
    names = dict.fromkeys(name for addition in additions for name in addition.adapter.layers)
    others = [f"{name}.weight" for name in names if name not in linear]
    others += [name for addition in additions for name in addition.adapter.differences]
    if others and not problems:
        listed = ", ".join(others[:10])
        message = f"changes parameters that are added to the weights alone: {listed}; merge it"
        problems = [Problem(where, message)]
    if problems:
        raise UserError(problems)
    handles: dict[str, Any] = {}
    for name in names:
        layer = linear[name]
        parts = [
            (addition.adapter.layers[name], addition.strength)
            for addition in additions
            if name in addition.adapter.layers
        ]
        down = torch.cat([part.down.to(torch.float32) for part, _ in parts])
        up = torch.cat([part.up.to(torch.float32) * (strength * part.scale) for part, strength in parts], 1)
        handles[name] = adapt(layer, len(down), 1.0, 0.0, layer.weight.dtype)
        for child, values in (("lora_A.weight", down), ("lora_B.weight", up)):
            layer.get_parameter(child).requires_grad_(False).copy_(values)
    return Attached(network, handles)


def linear_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """A network's linear layers by name; adapters' own are none of them."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not f".{name}".endswith((".lora_A", ".lora_B"))
    }


def adapt(layer: nn.Linear, rank: int, scale: float, dropout: float, dtype: torch.dtype) -> Any:
    """Puts an adapter of NaNs beside a layer; returns the handle of its hook."""
    assert not hasattr(layer, "lora_A"), "the layer has an adapter beside it already"
    layer.lora_A = _unfilled(layer.in_features, rank, layer.weight.device, dtype)
    layer.lora_B = _unfilled(rank, layer.out_features, layer.weight.device, dtype)
    return layer.register_forward_hook(partial(_add_product, scale=scale, dropout=dropout))


def _unfilled(width: int, out: int, device: torch.device, dtype: torch.dtype) -> nn.Linear:
    # On meta first: a layer that is made elsewhere draws from the stream that all share.
    layer = nn.Linear(width, out, bias=False, device="meta", dtype=dtype).to_empty(device=device)
    nn.init.constant_(layer.weight, torch.nan)
    return layer


def _add_product(
    layer: Any, inputs: tuple[Tensor, ...], output: Tensor, scale: float, dropout: float
) -> Tensor:
    """`output + scale * up(down(dropout(input)))`, in the dtype of the layer's output."""
    x = F.dropout(inputs[0].to(output.dtype), dropout, layer.training)
    down, up = layer.lora_A.weight.to(output.dtype), layer.lora_B.weight.to(output.dtype)
    return output + scale * F.linear(F.linear(x, down), up)

"""Adapters that are trained: beside a frozen network, with first values, and gathered to be saved."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mm_config.rules import matching
from mm_config.schema import Problem, UserError
from mm_config.specs import LoraInit, LoraSpec
from mm_models.lora.adapter import Adapter, LowRank
from mm_models.lora.dropout import Dropout, key_of_layer
from mm_models.lora.unmerged import Attached, adapt, linear_layers
from mm_models.networks import copy_whole
from mm_models.seeding import generator
from mm_models.weights.adapter_names import BESIDE


def attach_trainable(
    network: nn.Module, spec: LoraSpec, dtype: torch.dtype | None = None, *, path: str = "spec.lora"
) -> Attached:
    """Freezes a network and puts adapters without values beside the layers that the targets match.

    It comes after `build` and before sharding, on meta too; `initialize_adapters` or `fill_adapters` gives
    values, after those of the network.

    Args:
        network: Plain, not sharded.
        spec: Rank, alpha, dropout and targets.
        dtype: Of the adapters; the layers' own by default.
        path: Canonical path of the spec.

    Raises:
        UserError: A target matches no linear layer.
    """
    linear = linear_layers(network)
    matched = [matching(linear, target) for target in spec.targets]
    if idle := [index for index, names in enumerate(matched) if not names]:
        raise UserError(
            Problem(f"{path}.targets.{index}", f"{spec.targets[index]!r} matches no linear layer")
            for index in idle
        )
    network.requires_grad_(False)
    chosen = {name for names in matched for name in names}
    scale = spec.alpha / spec.rank
    dropout = Dropout(spec.dropout) if spec.dropout else None
    handles = {
        name: [
            adapt(
                layer,
                spec.rank,
                scale,
                dtype or layer.weight.dtype,
                None if dropout is None else partial(dropout, layer=key_of_layer(name)),
            )
        ]
        for name, layer in linear.items()
        if name in chosen
    }
    return Attached(network, handles, dropout=dropout)


@torch.no_grad()
def initialize_adapters(network: nn.Module, init: LoraInit, seed: int) -> None:
    """Draws first values, whole, by generators keyed by (seed, name); each product is zero.

    The first matrix is uniform in +-1 / sqrt(in) (Kaiming's rule with a = sqrt(5), as PEFT has it), or normal
    with deviation 1 / rank; the second is zero.
    """
    for name, parameter in adapter_parameters(network).items():
        rank, width = parameter.shape  # Of the first matrix; the second is drawn as zeros.
        whole = torch.zeros(parameter.shape)
        if name.endswith(BESIDE[0]):
            draws = generator(seed, name)
            if init is LoraInit.KAIMING:
                bound = 1 / math.sqrt(width)
                whole.uniform_(-bound, bound, generator=draws)
            else:
                whole.normal_(std=1 / rank, generator=draws)
        copy_whole(whole, parameter)


@torch.no_grad()
def fill_adapters(network: nn.Module, adapter: Adapter, *, where: str = "adapter") -> None:
    """Fills the adapters of a network with those of a file, which must be the same layers and ranks.

    Raises:
        UserError: As `require_same`; nothing is changed then.
    """
    require_same(network, adapter, where=where)
    values = _values(adapter)
    for name, parameter in adapter_parameters(network).items():
        copy_whole(values[name], parameter)


def require_same(network: nn.Module, adapter: Adapter, *, where: str = "adapter") -> None:
    """Looks whether adapters of a file can be trained further beside a network, which may be on meta.

    Raises:
        UserError: Layers are missing or too many, or shapes differ.
    """
    values, own = _values(adapter), adapter_parameters(network)
    differing = {name for name in own.keys() | values.keys() if name not in own or name not in values}
    differing |= {name for name in own.keys() & values.keys() if own[name].shape != values[name].shape}
    differing |= adapter.differences.keys()
    differing |= {f"{name}.{part}" for name, layer in adapter.layers.items() for part in layer.more}
    if differing:
        listed = ", ".join(sorted(differing)[:10])
        message = f"has other layers or ranks than are trained, in {len(differing)} tensors: {listed}"
        raise UserError(Problem(where, message))


def _values(adapter: Adapter) -> dict[str, Tensor]:
    """An adapter's matrices by the names of the parameters that they fill."""
    return {
        f"{name}{ending}": value
        for name, layer in adapter.layers.items()
        for ending, value in zip(BESIDE, (layer.down, layer.up), strict=True)
    }


def adapter_parameters(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of adapters beside a network's layers, by their names in it."""
    return {name: value for name, value in network.named_parameters() if name.endswith(BESIDE)}


def base_state(network: nn.Module) -> dict[str, Tensor]:
    """A network's own state, without adapters beside it: what `load` fills."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith(BESIDE)}


def trained_adapter(network: nn.Module, alpha: float) -> Adapter:
    """The adapters beside a network as one to save; sharded ones are gathered, so every rank calls it."""
    whole = {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in adapter_parameters(network).items()
    }
    names = [name.removesuffix(BESIDE[0]) for name in whole if name.endswith(BESIDE[0])]
    first, second = BESIDE
    return Adapter({name: LowRank(whole[name + first], whole[name + second], alpha) for name in names})

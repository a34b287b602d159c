"""Tensor parallelism: ranks share the matrices of attention and of the feed-forward network.

A layer that is split by outputs is followed by one that is split by inputs. What lies between them works on a
part of the heads, or of the width, without knowing of it. Everywhere else activations are whole and equal on
these ranks, and so are the gradients of parameters that are not split.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.distributed._functional_collectives import all_reduce, wait_tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mm_config.rules import matching
from mm_config.specs import Split
from mm_models.ops import gelu_linear, rms_norm


def split_matrices(network: nn.Module, plan: Mapping[str, Split], ranks: DeviceMesh) -> None:
    """Gives each rank its part of the layers that a plan names, adapters beside them included.

    The parameters become DTensors, also on meta, and keep their names; the method `forward` of the layers is
    replaced. It comes before what compiles, recomputes or shards the network.

    Args:
        network: Plain, equal on all ranks.
        plan: What is split, by patterns over names of modules, see `ModelSpec.tensor_plan`.
        ranks: Those that share it, a mesh with one axis.
    """
    # torch would warn of each whole tensor that it gathers over two axes one after the other.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    names = [name for name, _ in network.named_modules()]
    for pattern, split in plan.items():
        for name in matching(names, pattern):
            _SPLITTING[split](network.get_submodule(name), ranks)


def _enter(module: Any, ranks: DeviceMesh) -> None:
    module.forward = partial(_inside, module.forward, ranks.get_group())


def _split_outputs(layer: Any, ranks: DeviceMesh) -> None:
    _share(layer, "weight", 0, ranks)
    if layer.bias is not None:
        _share(layer, "bias", 0, ranks)
    layer.forward = partial(_some_outputs, layer)
    if hasattr(layer, "lora_B"):
        layer.lora_A.forward = partial(_whole, layer.lora_A, ranks.get_group())
        _split_outputs(layer.lora_B, ranks)


def _split_inputs(layer: Any, ranks: DeviceMesh) -> None:
    _share(layer, "weight", 1, ranks)
    layer.forward = partial(_some_inputs, F.linear, layer, ranks.get_group())
    layer.after_gelu = partial(_some_inputs, gelu_linear.product, layer, ranks.get_group())
    if hasattr(layer, "lora_A"):
        layer.lora_part = ranks.get_local_rank(), ranks.size()
        _split_inputs(layer.lora_A, ranks)


def _split_norm(norm: Any, ranks: DeviceMesh) -> None:
    _share(norm, "weight", 0, ranks)
    norm.forward = partial(_norm_of_all, norm, ranks.get_group())


_SPLITTING: Mapping[Split, Callable[[Any, DeviceMesh], None]] = {
    Split.INSIDE: _enter,
    Split.OUTPUTS: _split_outputs,
    Split.INPUTS: _split_inputs,
    Split.NORM: _split_norm,
}


def _share(module: nn.Module, name: str, axis: int, ranks: DeviceMesh) -> None:
    whole = module.get_parameter(name)
    size, count = whole.shape[axis], ranks.size()
    assert size % count == 0, f"{count} ranks can't share {size} values"
    # Every rank has the same values, so nothing is sent.
    part = distribute_tensor(whole.detach(), ranks, [Shard(axis)], src_data_rank=None)
    module.register_parameter(name, nn.Parameter(part, requires_grad=whole.requires_grad))


def _inside(forward: Callable[..., Tensor], group: dist.ProcessGroup, *inputs: Any) -> Tensor:
    """What each rank uses for its part of the layers; gradients of an input are summed once for them all."""
    return forward(*(shared(one, group) if isinstance(one, Tensor) else one for one in inputs))


def _some_outputs(layer: Any, x: Tensor) -> Tensor:
    """`[..., in]`, whole -> `[..., out / ranks]`."""
    bias = None if layer.bias is None else _own(layer.bias).type_as(x)
    return F.linear(x, _own(layer.weight).type_as(x), bias)


def _whole(layer: Any, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    """`[..., in]`, whole -> `[..., rank]`, whole, of which each rank has a part of the gradient."""
    return F.linear(x, shared(layer.weight, group).type_as(x))


def _some_inputs(
    product: Callable[[Tensor, Tensor], Tensor], layer: Any, group: dist.ProcessGroup, x: Tensor
) -> Tensor:
    """`[..., in / ranks]` -> `[..., out]`, whole."""
    out = summed(product(x, _own(layer.weight).type_as(x)), group)
    return out if layer.bias is None else out + layer.bias.type_as(x)


def _norm_of_all(norm: Any, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    """`[..., D / ranks]` -> the same, normed over all of D."""
    return rms_norm.of_parts(x, _own(norm.weight), norm.eps, lambda mean: _mean(mean, group))


def _mean(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Each rank uses the mean for other values, so their gradients of it are summed too."""
    return shared(summed(x, group), group) / group.size()


def _own(parameter: Tensor) -> Tensor:
    """This rank's part."""
    assert isinstance(parameter, DTensor)
    return parameter.to_local()


def shared(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """What is equal on all ranks, used by each for something else: the gradients are summed."""
    return _Shared.apply(x, group)  # type: ignore[no-any-return]


def summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over ranks, of which all make the same: each part's gradient is the sum's."""
    return _Summed.apply(x, group)  # type: ignore[no-any-return]


class _Shared(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.group), None


class _Summed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _sum(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return wait_tensor(all_reduce(x.contiguous(), "sum", group))

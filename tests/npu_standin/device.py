"""PyTorch's CPU kernels behind the device `npu`, whose memory is host memory.

Every `aten::` operator for which torch_npu has a kernel gets one that looks at the same bytes as a CPU
tensor. Operators without an NPU kernel get none: they raise, as they do on the hardware once falling back to
the CPU is switched off. What allocates, what only makes views, and what torch_npu composes of other operators
stays torch_npu's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

KEY = "PrivateUse1"
DEVICE = "npu"
CPU = torch.device("cpu")

NATIVE = {
    "_fused_sdp_choice",
    "_local_scalar_dense",
    "_pin_memory",
    "_to_copy",
    "as_strided_",
    "empty.memory_format",
    "empty_like",
    "empty_strided",
    "is_pinned",
    "record_stream",
    "resize_",
    "scaled_dot_product_attention",
    "set_",
    "set_.source_Storage",
    "set_.source_Storage_storage_offset",
    "set_.source_Tensor",
    "zeros",
}
"""Operators that keep torch_npu's own kernels beside those that make views."""

_libraries: list[torch.library.Library] = []
"""Kernels stay registered as long as their library lives."""


def register() -> None:
    """Puts the kernels over torch_npu's."""
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    for schema in schemas_with_kernel("aten"):
        name = overload_of(schema)
        views = any(one.alias_info and not one.alias_info.is_write for one in schema.returns)
        if not views and name not in {*NATIVE, *_COPIES, *_OWN_WAYS}:
            library.impl(name, on_host(packet_of(schema)), KEY, allow_override=True)
    for name, kernel in _COPIES.items():
        library.impl(name, kernel, KEY, allow_override=True)
    for name, kernel in _OWN_WAYS.items():
        library.impl(name, on_host(kernel), KEY, allow_override=True)


def schemas_with_kernel(namespace: str) -> Iterator[Any]:
    """The schemas of a namespace for which torch_npu has a kernel."""
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith(f"{namespace}::"):
            continue
        try:
            found = torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{overload_of(schema)}", KEY)
        except RuntimeError:  # PyTorch lists operators of TorchScript too, which have no dispatch.
            continue
        if found:
            yield schema


def overload_of(schema: Any) -> str:
    """`add.Tensor`, without the namespace; the default overload has no name."""
    name = schema.name.partition("::")[2]
    return f"{name}.{schema.overload_name}" if schema.overload_name else name


def packet_of(schema: Any) -> Callable[..., Any]:
    """The operator of an `aten::` schema."""
    packet = getattr(torch.ops.aten, schema.name.partition("::")[2])
    return getattr(packet, schema.overload_name or "default")


def host_view(x: Tensor) -> Tensor:
    """A CPU tensor over the same bytes, valid as long as `x` lives."""
    storage = x.untyped_storage()
    bytes_ = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), CPU, storage.nbytes())
    return torch.empty(0, dtype=x.dtype).set_(bytes_, x.storage_offset(), x.shape, x.stride())


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor with its strides."""
    out = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)
    if x.numel():
        host_view(out).copy_(x)
    return out


def on_host(op: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that runs `op` on views of its arguments and hands the results back on the device."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        device: torch.device | None = None
        given: dict[int, tuple[Tensor, Tensor]] = {}

        def come(x: Any) -> Any:
            nonlocal device
            if isinstance(x, Tensor) and x.device.type == DEVICE:
                device = x.device
                view = host_view(x)
                given[id(view)] = (view, x)
                return view
            if isinstance(x, torch.device) and x.type == DEVICE:
                device = x
                return CPU
            if isinstance(x, torch.Generator) and x.device.type == DEVICE:
                raise NotImplementedError("the stand-in has no random numbers of the device")
            return x

        def go(x: Any) -> Any:
            if not isinstance(x, Tensor) or x.device.type != "cpu" or device is None:
                return x
            if id(x) not in given:
                return to_device(x, device)
            _, original = given[id(x)]
            if x.shape != original.shape:  # An `out=` argument that was empty.
                original.resize_(x.shape)
                host_view(original).copy_(x)
            return original

        arguments, options = tree_map(come, (args, kwargs))
        return tree_map(go, op(*arguments, **options))

    return kernel


def _on_host(x: Tensor) -> Tensor:
    return host_view(x) if x.device.type == DEVICE else x


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    _on_host(target).copy_(_on_host(source))
    return target


def _copy_and_resize(source: Tensor, target: Tensor) -> Tensor:
    return _copy(target.resize_(source.shape), source)


def _contiguous(x: Tensor, *, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    return x if x.is_contiguous(memory_format=memory_format) else x.clone(memory_format=memory_format)


_COPIES: dict[str, Callable[..., Any]] = {
    "copy_": _copy,
    "_copy_from_and_resize": _copy_and_resize,
    "contiguous": _contiguous,
}
"""Kernels between the device and the host, or that may return their argument."""


def _gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    return torch.ops.aten.gelu(input, approximate="tanh")


def _gelu_backward(grad_output: Tensor, input: Tensor, *, approximate: str = "none") -> Tensor:
    return torch.ops.aten.gelu_backward(grad_output, input, approximate="tanh")


def _matmul_backward(
    grad: Tensor, self: Tensor, other: Tensor, mask: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    if min(self.ndim, other.ndim) < 2:
        raise NotImplementedError("the stand-in has no gradients of products with vectors")
    return (
        (grad @ other.mT).sum_to_size(self.shape) if mask[0] else None,
        (self.mT @ grad).sum_to_size(other.shape) if mask[1] else None,
    )


_OWN_WAYS: dict[str, Callable[..., Any]] = {
    "gelu": _gelu,
    "gelu_backward": _gelu_backward,
    "matmul_backward": _matmul_backward,
}
"""Kernels that compute something else than the CPU's: on an NPU, GELU is always the one by tanh.

What torch_npu derives a product by is an operator that the CPU has for nested tensors alone.
"""

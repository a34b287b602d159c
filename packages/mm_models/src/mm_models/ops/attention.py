"""Attention of query tokens to key tokens.

Shapes: B batch, S query tokens, L key tokens, H heads, D head width. A mask is of bools, True where a key
takes part, in four axes that broadcast to `[B, H, S, L]`; none means that all do. There are no additive
masks: kernels that take them hold a value for every pair of tokens.
"""

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Form = Callable[..., Tensor]
"""`(query_BSHD, key_BLHD, value_BLHD, mask_BHSL=None) -> [B, S, H, D]`."""

FLASH_2, FLASH_3 = "flash_attn", "flash_attn_interface"
"""The modules of FlashAttention's releases."""

ACCELERATED = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""PyTorch's kernels in the order that they are tried; its plain one would hold every pair of tokens."""


def reference(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, `[B, S, H, D]`.

    Args:
        query_BSHD: Queries.
        key_BLHD: Keys.
        value_BLHD: Values.
        mask_BHSL: True where a key takes part.
    """
    scores_BHSL = torch.einsum("bshd,blhd->bhsl", query_BSHD, key_BLHD) / math.sqrt(query_BSHD.shape[-1])
    if mask_BHSL is not None:
        scores_BHSL = scores_BHSL.masked_fill(~_bools(mask_BHSL), -math.inf)
    return torch.einsum("bhsl,blhd->bshd", scores_BHSL.softmax(-1), value_BLHD)


def sdpa(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None) -> Tensor:
    """PyTorch's own attention; on CUDA the first of `ACCELERATED` that takes the input."""
    if query_BSHD.device.type != "cuda":
        return _sdpa(query_BSHD, key_BLHD, value_BLHD, mask_BHSL)
    with sdpa_kernel(ACCELERATED, set_priority=True):
        return _sdpa(query_BSHD, key_BLHD, value_BLHD, mask_BHSL)


def cudnn(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """cuDNN's attention, through PyTorch."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return _sdpa(query_BSHD, key_BLHD, value_BLHD, mask_BHSL)


def flash_2(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """FlashAttention 2, of the extra `flash`; takes no mask."""
    refuse_mask(mask_BHSL, "flash_2")
    return import_module(FLASH_2).flash_attn_func(query_BSHD, key_BLHD, value_BLHD, **_repeatable())


def flash_3(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """FlashAttention 3 for Hopper, built from FlashAttention's folder `hopper`; takes no mask."""
    refuse_mask(mask_BHSL, "flash_3")
    out = import_module(FLASH_3).flash_attn_func(query_BSHD, key_BLHD, value_BLHD, **_repeatable())
    # Releases differ in whether the log-sum-exp comes with the output.
    return out[0] if isinstance(out, tuple) else out


def npu(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None) -> Tensor:
    """Ascend's fused attention; heads stay where they are, since the kernel reads that layout."""
    batch, tokens, heads, width = query_BSHD.shape
    # Sparse mode 1 takes the mask as it is. Mode 0 would also cut it to a band around the diagonal.
    masked_out, mode = None, 0
    if mask_BHSL is not None:
        # The kernel masks where 1 stands, and takes no keys or queries that broadcast.
        mask = _bools(mask_BHSL)[(None,) * (4 - mask_BHSL.ndim)]
        samples = batch if mask.shape[1] > 1 else mask.shape[0]
        masked_out, mode = ~mask.expand(samples, -1, tokens, key_BLHD.shape[1]), 1
    return torch.ops.npu.npu_fusion_attention(
        query_BSHD,
        key_BLHD,
        value_BLHD,
        heads,
        "BSND",
        atten_mask=masked_out,
        scale=1 / math.sqrt(width),
        sparse_mode=mode,
    )[0]


def _sdpa(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None) -> Tensor:
    query, key, value = (x.transpose(1, 2) for x in (query_BSHD, key_BLHD, value_BLHD))
    mask = None if mask_BHSL is None else _bools(mask_BHSL)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def _repeatable() -> dict[str, bool]:
    """Has FlashAttention's backward pass add up in one order where only such kernels may run."""
    return {"deterministic": True} if torch.are_deterministic_algorithms_enabled() else {}


def _bools(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"a mask of attention is of bools, True where a key takes part; got {mask.dtype}")
    return mask


def refuse_mask(mask: Tensor | None, form: str) -> None:
    """For forms that take none.

    Raises:
        TypeError: There is a mask.
    """
    if mask is not None:
        raise TypeError(f"{form} takes no mask; choose sdpa")


def installed(module: str) -> bool:
    """Whether a package of kernels can be imported."""
    package = module.rpartition(".")[0]
    return (not package or installed(package)) and find_spec(module) is not None

"""Attention to a part of the keys, with the log-sum-exp of its scores, by which parts are merged.

The backward pass of a part takes the output and the log-sum-exp of all keys: it makes the weights anew from
the latter. Every kernel that is called here does so.

Shapes: B batch, S query tokens, L key tokens, H heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from mm_models.ops.widening import widened

aten: Any = torch.ops.aten


@attrs.frozen
class Partial:
    """A form of attention."""

    forward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """`(query_BSHD, key_BLHD, value_BLHD) -> [B, S, H, D], [B, H, S]`: the output, and the log-sum-exp of
    each query's scores, in float32 at least."""
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    """`(gradient_BSHD, query, key, value, out, lse) -> gradients of query, key and value`: the last two
    arguments are those of all keys, the gradients those by way of the given keys."""


def reference(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor) -> tuple[Tensor, Tensor]:
    """The plain form, which holds a score for every pair of tokens."""
    scores_BHSL = _scores(query_BSHD, key_BLHD)
    lse_BHS = scores_BHSL.logsumexp(-1)
    weights_BHSL = (scores_BHSL - lse_BHS.unsqueeze(-1)).exp()
    out_BSHD = torch.einsum("bhsl,blhd->bshd", weights_BHSL, widened(value_BLHD))
    return out_BSHD.type_as(query_BSHD), lse_BHS


def reference_backward(
    gradient_BSHD: Tensor,
    query_BSHD: Tensor,
    key_BLHD: Tensor,
    value_BLHD: Tensor,
    out_BSHD: Tensor,
    lse_BHS: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of the plain form."""
    weights_BHSL = (_scores(query_BSHD, key_BLHD) - lse_BHS.unsqueeze(-1)).exp()
    wide = widened(gradient_BSHD)
    of_weights_BHSL = torch.einsum("bshd,blhd->bhsl", wide, widened(value_BLHD))
    of_sum_BHS = (wide * widened(out_BSHD)).sum(-1).transpose(1, 2)
    of_scores_BHSL = weights_BHSL * (of_weights_BHSL - of_sum_BHS.unsqueeze(-1))
    of_scores_BHSL /= math.sqrt(query_BSHD.shape[-1])
    found = (
        torch.einsum("bhsl,blhd->bshd", of_scores_BHSL, widened(key_BLHD)),
        torch.einsum("bhsl,bshd->blhd", of_scores_BHSL, widened(query_BSHD)),
        torch.einsum("bhsl,bshd->blhd", weights_BHSL, wide),
    )
    of_query, of_key, of_value = (one.type_as(query_BSHD) for one in found)
    return of_query, of_key, of_value


def _scores(query_BSHD: Tensor, key_BLHD: Tensor) -> Tensor:
    scale = 1 / math.sqrt(query_BSHD.shape[-1])
    return torch.einsum("bshd,blhd->bhsl", widened(query_BSHD), widened(key_BLHD)) * scale


def sdpa(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's fused attention: on CUDA FlashAttention's for 16 bits, the memory-efficient one for more."""
    if query_BSHD.device.type == "npu":
        return npu(query_BSHD, key_BLHD, value_BLHD)
    query, key, value = _heads_first(query_BSHD, key_BLHD, value_BLHD)
    if query.device.type != "cuda":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    elif query.dtype.itemsize == 2:
        out, lse, *_ = aten._scaled_dot_product_flash_attention(query, key, value)
    else:
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(query, key, value, None, True)
    # The memory-efficient kernel fills up the last tile of queries.
    return out.transpose(1, 2), lse.narrow(-1, 0, query.shape[2])


def sdpa_backward(
    gradient_BSHD: Tensor,
    query_BSHD: Tensor,
    key_BLHD: Tensor,
    value_BLHD: Tensor,
    out_BSHD: Tensor,
    lse_BHS: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of `sdpa`."""
    if query_BSHD.device.type == "npu":
        return npu_backward(gradient_BSHD, query_BSHD, key_BLHD, value_BLHD, out_BSHD, lse_BHS)
    gradient, query, key, value, out = _heads_first(gradient_BSHD, query_BSHD, key_BLHD, value_BLHD, out_BSHD)
    if query.device.type != "cuda":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, key, value, out, lse_BHS, 0.0, False
        )
    elif query.dtype.itemsize == 2:
        none = torch.zeros((), dtype=torch.uint64, device=query.device)
        sizes = query.shape[2], key.shape[2]
        found = aten._scaled_dot_product_flash_attention_backward(
            gradient, query, key, value, out, lse_BHS, None, None, *sizes, 0.0, False, none, none
        )
    else:
        filled = F.pad(lse_BHS, (0, -lse_BHS.shape[-1] % _TILE))
        none = torch.zeros((), dtype=torch.int64, device=query.device)
        wanted = [True, True, True, False]
        *found, _ = aten._scaled_dot_product_efficient_attention_backward(
            gradient, query, key, value, None, out, filled, none, none, 0.0, wanted
        )
    of_query, of_key, of_value = _heads_first(*found)
    return of_query, of_key, of_value


_TILE = 32
"""Queries to a multiple of which the memory-efficient kernel fills up its log-sum-exp."""


def _heads_first(*tensors: Tensor) -> tuple[Tensor, ...]:
    """`[B, S, H, D]` -> `[B, H, S, D]`, and back."""
    return tuple(one.transpose(1, 2) for one in tensors)


def npu(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor) -> tuple[Tensor, Tensor]:
    """Ascend's fused attention, which gives each row's largest score and the sum of exponentials above it."""
    out_BSHD, largest, total, *_ = torch.ops.npu.npu_fusion_attention(
        query_BSHD, key_BLHD, value_BLHD, query_BSHD.shape[2], "BSND", scale=query_BSHD.shape[-1] ** -0.5
    )
    return out_BSHD, largest[..., 0] + total[..., 0].log()


def npu_backward(
    gradient_BSHD: Tensor,
    query_BSHD: Tensor,
    key_BLHD: Tensor,
    value_BLHD: Tensor,
    out_BSHD: Tensor,
    lse_BHS: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of `npu`; a largest score of the log-sum-exp leaves a sum of one."""
    largest = lse_BHS.unsqueeze(-1).expand(*lse_BHS.shape, _NPU_COPIES).contiguous()
    of_query, of_key, of_value, *_ = torch.ops.npu.npu_fusion_attention_grad(
        *(query_BSHD, key_BLHD, value_BLHD, gradient_BSHD, query_BSHD.shape[2], "BSND"),
        softmax_max=largest,
        softmax_sum=torch.ones_like(largest),
        attention_in=out_BSHD,
        scale_value=query_BSHD.shape[-1] ** -0.5,
    )
    return of_query, of_key, of_value


_NPU_COPIES = 8
"""How often Ascend's kernel keeps each number of a row, as its vector unit reads them."""

FORMS = {
    "reference": Partial(reference, reference_backward),
    "sdpa": Partial(sdpa, sdpa_backward),
    "npu": Partial(npu, npu_backward),
}
"""By the names of the forms of `mm_models.ops.attention`."""

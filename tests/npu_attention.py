"""What Ascend's attention operators compute, on CPU tensors; `npu_references` lists them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ANY_DISTANCE = 2147483647
STATISTICS = 8
"""The operator keeps each row's maximum and sum eight times, as its vector unit reads them."""
COMPRESSED_MASK = (2048, 2048)
MAX_HEADS, MAX_HEAD_DIM, MAX_TOKENS = 256, 768, 1_000_000


def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = ANY_DISTANCE,
    next_tockens: int = ANY_DISTANCE,
    inner_precise: int = 0,
    prefix: Any = None,
    actual_seq_qlen: Any = None,
    actual_seq_kvlen: Any = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
    softmax_layout: str = "",
    sink: Tensor | None = None,
    dropout_mask: Tensor | None = None,
    seed: int = 0,
    offset: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """Attention, each row's maximum and sum `[B, N, S, 8]`, an empty tensor, and the state of dropout."""
    refuse(
        pse, padding_mask, prefix, actual_seq_qlen, actual_seq_kvlen, sink, dropout_mask, keep_prob=keep_prob
    )
    hidden = hidden_pairs(
        atten_mask, query, key, head_num, input_layout, sparse_mode, pre_tockens, next_tockens
    )
    out, maximum, total = _attend(query, key, value, head_num, input_layout, hidden, scale)
    return out, maximum, total, query.new_empty(0), 0, 0, 0


def npu_fusion_attention_v3(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = ANY_DISTANCE,
    next_tockens: int = ANY_DISTANCE,
    inner_precise: int = 0,
    prefix: Any = None,
    actual_seq_qlen: Tensor | None = None,
    actual_seq_kvlen: Tensor | None = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
    softmax_layout: str = "",
    sink: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `npu_fusion_attention`, with the state of dropout in tensors; PyTorch's own attention calls it."""
    *outputs, _, _, _ = npu_fusion_attention(
        query,
        key,
        value,
        head_num,
        input_layout,
        pse=pse,
        padding_mask=padding_mask,
        atten_mask=atten_mask,
        scale=scale,
        keep_prob=keep_prob,
        pre_tockens=pre_tockens,
        next_tockens=next_tockens,
        prefix=prefix,
        actual_seq_qlen=actual_seq_qlen,
        actual_seq_kvlen=actual_seq_kvlen,
        sparse_mode=sparse_mode,
        sink=sink,
    )
    out, maximum, total, empty = outputs
    return out, maximum, total, empty, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)


def npu_fusion_attention_grad(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dy: Tensor,
    head_num: int,
    input_layout: str,
    *,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    softmax_max: Tensor | None = None,
    softmax_sum: Tensor | None = None,
    softmax_in: Tensor | None = None,
    attention_in: Tensor | None = None,
    scale_value: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = ANY_DISTANCE,
    next_tockens: int = ANY_DISTANCE,
    inner_precise: int = 0,
    seed: Any = 0,
    offset: Any = 0,
    numels: int = 0,
    prefix: Any = None,
    actual_seq_qlen: Any = None,
    actual_seq_kvlen: Any = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
    softmax_layout: str = "",
    sink: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, and empty ones of what nobody gave.

    Probabilities are made again from the maxima and sums that the forward pass kept.
    """
    refuse(pse, padding_mask, prefix, actual_seq_qlen, actual_seq_kvlen, sink, keep_prob=keep_prob)
    assert softmax_max is not None and softmax_sum is not None and attention_in is not None
    hidden = hidden_pairs(
        atten_mask, query, key, head_num, input_layout, sparse_mode, pre_tockens, next_tockens
    )
    q, k, v, out, d_out = (
        heads_first(x, head_num, input_layout).float() for x in (query, key, value, attention_in, dy)
    )
    scores = q @ k.transpose(-1, -2) * scale_value
    probabilities = (scores - softmax_max[..., :1]).exp() / softmax_sum[..., :1]
    if hidden is not None:
        probabilities = probabilities.masked_fill(hidden, 0.0)
    d_probabilities = d_out @ v.transpose(-1, -2)
    d_scores = probabilities * (d_probabilities - (d_out * out).sum(-1, keepdim=True)) * scale_value
    d_query, d_key, d_value = (
        d_scores @ k,
        d_scores.transpose(-1, -2) @ q,
        probabilities.transpose(-1, -2) @ d_out,
    )
    return (
        _as_given(d_query, query, input_layout),
        _as_given(d_key, key, input_layout),
        _as_given(d_value, value, input_layout),
        query.new_empty(0),
        query.new_empty(0),
    )


npu_fusion_attention_grad_v3 = npu_fusion_attention_grad
"""The same but for the state of dropout, which comes in tensors."""


def hidden_pairs(
    atten_mask: Tensor | None,
    query: Tensor,
    key: Tensor,
    head_num: int,
    input_layout: str,
    sparse_mode: int,
    pre_tokens: int = ANY_DISTANCE,
    next_tokens: int = ANY_DISTANCE,
) -> Tensor | None:
    """What takes no part, True there, broadcastable to `[B, N, S, L]`; None if everything takes part.

    A mask holds 1 where a pair is masked out. Mode 0 cuts it to a band around the diagonal, mode 1 takes it
    as it is, modes 2 and 3 are causal from the upper left and the lower right corner, of a mask that is small
    and always the same.
    """
    batch, _, queries, _ = heads_first(query, head_num, input_layout).shape
    keys = heads_first(key, head_num, input_layout).shape[2]
    if sparse_mode not in (0, 1, 2, 3):
        raise NotImplementedError(f"sparse_mode {sparse_mode} has no reference")
    if atten_mask is None:
        if sparse_mode > 1:
            raise ValueError(f"sparse_mode {sparse_mode} needs a mask of {COMPRESSED_MASK}")
        return None
    if atten_mask.dtype not in (torch.bool, torch.uint8):
        raise TypeError(f"a mask is of bools or uint8, got {atten_mask.dtype}")
    behind = torch.arange(keys) - torch.arange(queries)[:, None]
    if sparse_mode in (2, 3):
        if tuple(atten_mask.shape) != COMPRESSED_MASK or not torch.equal(
            atten_mask.bool(), torch.ones(COMPRESSED_MASK, dtype=torch.bool).triu(1)
        ):
            raise ValueError(f"sparse_mode {sparse_mode} takes the upper triangle of {COMPRESSED_MASK}")
        hidden = behind > (0 if sparse_mode == 2 else keys - queries)
    else:
        allowed = {
            (batch, head_num, queries, keys),
            (batch, 1, queries, keys),
            (1, 1, queries, keys),
            (queries, keys),
        }
        if tuple(atten_mask.shape) not in allowed:
            raise ValueError(f"a mask of {tuple(atten_mask.shape)} is none of {sorted(allowed)}")
        hidden = atten_mask.bool()
        if sparse_mode == 0:
            hidden = hidden | (behind < -pre_tokens) | (behind > next_tokens)
    if bool(hidden.all(-1).any()):
        raise ValueError("a query whose keys are all masked out has no attention")
    return hidden


def heads_first(x: Tensor, head_num: int, input_layout: str) -> Tensor:
    """A tensor of the layout as `[B, N, S, D]`."""
    if input_layout == "BNSD":
        heads, batched = x.shape[1], x
    elif input_layout == "BSND":
        heads, batched = x.shape[2], x.transpose(1, 2)
    elif input_layout == "BSH":
        heads, batched = head_num, x.unflatten(-1, (head_num, -1)).transpose(1, 2)
    elif input_layout == "SBH":
        heads, batched = head_num, x.unflatten(-1, (head_num, -1)).permute(1, 2, 0, 3)
    else:
        raise NotImplementedError(f"layout {input_layout} has no reference")
    if batched.ndim != 4 or heads != head_num:
        raise ValueError(f"{tuple(x.shape)} is not {input_layout} of {head_num} heads")
    return batched


def _as_given(x_BNSD: Tensor, like: Tensor, input_layout: str) -> Tensor:
    """`[B, N, S, D]` in the layout and format of another tensor."""
    if input_layout == "BNSD":
        moved = x_BNSD
    elif input_layout == "BSND":
        moved = x_BNSD.transpose(1, 2)
    elif input_layout == "BSH":
        moved = x_BNSD.transpose(1, 2).flatten(2)
    else:
        moved = x_BNSD.permute(2, 0, 1, 3).flatten(2)
    return moved.to(like.dtype).contiguous()


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    hidden: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if len({query.dtype, key.dtype, value.dtype}) > 1 or query.dtype not in FLOATS:
        raise TypeError(f"attention of {query.dtype}, {key.dtype} and {value.dtype}")
    q, k, v = (heads_first(x, head_num, input_layout).float() for x in (query, key, value))
    if head_num > MAX_HEADS or q.shape[-1] > MAX_HEAD_DIM:
        raise ValueError(f"{head_num} heads of {q.shape[-1]}: at most {MAX_HEADS} of {MAX_HEAD_DIM}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}, values {tuple(v.shape)}")
    if max(q.shape[2], k.shape[2]) > MAX_TOKENS:
        raise ValueError(f"{q.shape[2]} queries of {k.shape[2]} keys: at most {MAX_TOKENS}")
    scores = q @ k.transpose(-1, -2) * scale
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    maximum = scores.amax(-1, keepdim=True)
    total = (scores - maximum).exp().sum(-1, keepdim=True)
    # PyTorch's own kernel, so that networks after it are compared by what they do, not by its last digit.
    out = F.scaled_dot_product_attention(q, k, v, None if hidden is None else ~hidden, scale=scale)
    return (
        _as_given(out, query, input_layout),
        maximum.repeat(1, 1, 1, STATISTICS),
        total.repeat(1, 1, 1, STATISTICS),
    )


def refuse(*arguments: Any, keep_prob: float = 1.0) -> None:
    if keep_prob != 1.0:
        raise NotImplementedError("dropout has no reference")
    if any(argument is not None for argument in arguments):
        raise NotImplementedError("an argument has no reference")

"""Attention over tokens; the one function that context parallelism and other kernels replace."""

import torch.nn.functional as F
from torch import Tensor


def attention(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, without a mask.

    Args:
        query_BSHD: Batch, query tokens, heads, head width.
        key_BLHD: Batch, key tokens, heads, head width.
        value_BLHD: As the keys.

    Returns:
        `[B, S, H * D]`.
    """
    out_BHSD = F.scaled_dot_product_attention(
        query_BSHD.transpose(1, 2), key_BLHD.transpose(1, 2), value_BLHD.transpose(1, 2)
    )
    return out_BHSD.transpose(1, 2).flatten(2)

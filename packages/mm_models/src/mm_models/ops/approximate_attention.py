"""Attention that is faster and not exact, in the forms of `mm_models.ops.attention`; none takes a mask.

Each has a plain form, which computes step by step what the kernels were published with, and one that calls
the kernels. Kernels of later releases round more than the plain form does: what a device has made is a video
of this device.
"""

import math
from importlib import import_module

import torch
from torch import Tensor

from mm_models.ops.attention import refuse_mask

SAGE, FLASH_4 = "sageattention", "flash_attn.cute"
"""The modules of the kernels."""

SAGE_QUERIES, SAGE_KEYS = 128, 64
"""Tokens of a head that share a scale."""

EXP2 = (1.0, 0.695146143436431884765625, 0.227564394474029541015625, 0.077119089663028717041015625)
"""Of FlashAttention 4: coefficients of a polynomial for 2^x from 0 to 1, whose relative error is 9e-5."""


def sage_reference(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """SageAttention (arXiv 2410.02367, algorithm 1) with a scale for each block of tokens, `[B, S, H, D]`.

    Keys lose their mean over tokens, which softmax doesn't see. Queries, times log2(e) / sqrt(D), and keys
    are int8 by blocks of 128 and 64 tokens; their products are exact. The softmax goes on block by block of
    keys, in float32; its numerators and the values are rounded to float16, their products summed in float32.

    Args:
        query_BSHD: Queries.
        key_BLHD: Keys.
        value_BLHD: Values.
        mask_BHSL: None.
    """
    refuse_mask(mask_BHSL, "sage")
    query, key, value = (x.transpose(1, 2).float() for x in (query_BSHD, key_BLHD, value_BLHD))
    key = key - key.mean(2, keepdim=True)
    query = query * (math.log2(math.e) / math.sqrt(query.shape[3]))
    query, query_scale = _int8_by_blocks(query, SAGE_QUERIES)
    key, key_scale = _int8_by_blocks(key, SAGE_KEYS)
    value = value.half().float()
    largest = query.new_full((*query.shape[:3], 1), -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(query)
    for begin in range(0, key.shape[2], SAGE_KEYS):
        block = slice(begin, begin + SAGE_KEYS)
        # Sums of products of int8 stay below 2^24 up to a width of 1024, so float32 holds them.
        scores = (query @ key[:, :, block].mT) * query_scale * key_scale[:, :, block].mT
        before, largest = largest, torch.maximum(largest, scores.amax(3, keepdim=True))
        weights, kept = (scores - largest).exp2(), (before - largest).exp2()
        total = total * kept + weights.sum(3, keepdim=True)
        out = out * kept + weights.half().float() @ value[:, :, block]
    return (out / total).transpose(1, 2).to(query_BSHD.dtype)


def sage(query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None) -> Tensor:
    """The kernels of the package sageattention that it takes for the device."""
    refuse_mask(mask_BHSL, "sage")
    return import_module(SAGE).sageattn(query_BSHD, key_BLHD, value_BLHD, tensor_layout="NHD")


def flash_4_reference(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """FlashAttention 4 with a polynomial for each exponential, `[B, S, H, D]`.

    Kernels take it for a share of them, by head width and device; this is the most they may differ.

    Args:
        query_BSHD: Queries.
        key_BLHD: Keys.
        value_BLHD: Values.
        mask_BHSL: None.
    """
    refuse_mask(mask_BHSL, "flash_4")
    query, key, value = (x.transpose(1, 2) for x in (query_BSHD, key_BLHD, value_BLHD))
    scores = (query.float() @ key.float().mT) * (math.log2(math.e) / math.sqrt(query.shape[3]))
    weights = polynomial_exp2(scores - scores.amax(3, keepdim=True))
    out = weights.to(value.dtype).float() @ value.float() / weights.sum(3, keepdim=True)
    return out.transpose(1, 2).to(value.dtype)


def flash_4(
    query_BSHD: Tensor, key_BLHD: Tensor, value_BLHD: Tensor, mask_BHSL: Tensor | None = None
) -> Tensor:
    """The kernels of the package flash-attn-4."""
    refuse_mask(mask_BHSL, "flash_4")
    out, _ = import_module(FLASH_4).flash_attn_func(query_BSHD, key_BLHD, value_BLHD)
    return out


def polynomial_exp2(x: Tensor) -> Tensor:
    """2^x of float32 values that are 0 at most: the whole part as exponent, the rest by `EXP2`."""
    clamped = x.clamp(min=-127)
    whole = clamped.floor()
    rest, value = clamped - whole, torch.full_like(x, EXP2[-1])
    for coefficient in reversed(EXP2[:-1]):
        value = value * rest + coefficient
    return torch.ldexp(value, whole)


def _int8_by_blocks(x_BHSD: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, as float32, and the scale of each token, `[B, H, S, 1]`."""
    largest = x_BHSD.abs().amax(3, keepdim=True)
    blocks = [part.amax(2, keepdim=True).expand_as(part) for part in largest.split(tokens, 2)]
    scale = torch.cat(blocks, 2) / 127
    return (x_BHSD / scale.clamp(min=torch.finfo(torch.float32).tiny)).round(), scale

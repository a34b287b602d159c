"""A block of Wan's transformer.

Shapes: B batch, S tokens, L text tokens, I image tokens, D model width, H heads.
"""

import torch
from torch import Tensor, nn

from mm_config.specs import WanTransformerSpec
from mm_models.ops.choosing import Ops
from mm_models.ops.layers import Float32LayerNorm
from mm_models.ops.rope import Rope
from mm_models.wan.conditioning import Modulation
from mm_models.wan.feed_forward import FeedForward


class RMSNorm(nn.Module):
    """Root-mean-square norm of the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.eps, self.ops = eps, ops
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`, in the input's dtype."""
        return self.ops.rms_norm(x_BLD, self.weight, self.eps)


class Attention(nn.Module):
    """What both attentions have; queries and keys are RMS-normalised over all heads together."""

    def __init__(self, dim: int, heads: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.head_dim, self.ops = dim // heads, ops
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = RMSNorm(dim, eps, ops)
        self.norm_k = RMSNorm(dim, eps, ops)

    def split_heads(self, x_BLD: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, H, D / H]`, also of some of the heads."""
        return x_BLD.unflatten(-1, (-1, self.head_dim))


class SelfAttention(Attention):
    """Every token attends to every token; queries and keys are rotated by their token's place."""

    def forward(self, x_BSD: Tensor, rope: Rope) -> Tensor:
        """`[B, S, D]` -> `[B, S, D]`."""
        query = self.ops.rotate(self.split_heads(self.norm_q(self.to_q(x_BSD))), rope)
        key = self.ops.rotate(self.split_heads(self.norm_k(self.to_k(x_BSD))), rope)
        value = self.split_heads(self.to_v(x_BSD))
        return self.to_out[0](self.ops.self_attention(query, key, value).flatten(2))


class CrossAttention(Attention):
    """Tokens attend to the caption and, in an image branch, to image features; both results are summed."""

    def __init__(self, dim: int, heads: int, eps: float, ops: Ops, *, image_branch: bool) -> None:
        super().__init__(dim, heads, eps, ops)
        if image_branch:
            self.add_k_proj = nn.Linear(dim, dim)
            self.add_v_proj = nn.Linear(dim, dim)
            self.norm_added_k = RMSNorm(dim, eps, ops)

    def forward(self, x_BSD: Tensor, text_BLD: Tensor, image_BID: Tensor | None) -> Tensor:
        """`[B, S, D]` -> `[B, S, D]`; image features are given exactly where there is an image branch."""
        query = self.split_heads(self.norm_q(self.to_q(x_BSD)))
        key = self.split_heads(self.norm_k(self.to_k(text_BLD)))
        value = self.split_heads(self.to_v(text_BLD))
        out_BSHD = self.ops.attention(query, key, value)
        if image_BID is not None:
            key = self.split_heads(self.norm_added_k(self.add_k_proj(image_BID)))
            value = self.split_heads(self.add_v_proj(image_BID))
            out_BSHD = out_BSHD + self.ops.attention(query, key, value)
        return self.to_out[0](out_BSHD.flatten(2))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and last are modulated by the timestep."""

    def __init__(self, spec: WanTransformerSpec, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        dim, heads, self.eps = spec.hidden_size, spec.num_attention_heads, spec.eps
        self.attn1 = SelfAttention(dim, heads, spec.eps, ops)
        self.attn2 = CrossAttention(dim, heads, spec.eps, ops, image_branch=spec.image_dim is not None)
        self.norm2 = Float32LayerNorm(dim, spec.eps) if spec.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(dim, spec.ffn_dim, dim, approximate="tanh")
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, dim))

    def forward(
        self,
        x_BSD: Tensor,
        text_BLD: Tensor,
        modulation: Modulation,
        rope: Rope,
        image_BID: Tensor | None = None,
    ) -> Tensor:
        """One residual step of the stream, which may be wider than the layers beside it."""
        ops, eps, rows, dtype = self.ops, self.eps, modulation.rows_BS, text_BLD.dtype
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation.of_block(self.scale_shift_table)
        attended = self.attn1(ops.modulate(x_BSD, shift, scale, eps, rows, dtype), rope)
        x_BSD = ops.gate_residual(x_BSD, attended, gate, rows)
        x_BSD = x_BSD + self.attn2(self.norm2(x_BSD).to(dtype), text_BLD, image_BID)
        fed = self.ffn(ops.modulate(x_BSD, ffn_shift, ffn_scale, eps, rows, dtype))
        return ops.gate_residual(x_BSD, fed, ffn_gate, rows)

"""CustomDiT: Wan's parts, put together in another way.

Its blocks' norms have weights of their own, and both attentions read the same modulated stream.
Shapes: B batch, C latent channels, T H W latent frames, height, width; S tokens, L text tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.custom_dit.spec import CustomDiTSpec
from mm_models.ops import Float32LayerNorm, Float32Linear, Ops, Rope, axis_table, grid_table
from mm_models.wan import (
    CrossAttention,
    FeedForward,
    PatchEmbedding,
    SelfAttention,
    TextEmbedder,
    TimeEmbedder,
    unpatchify,
)

EPS = 1e-5


class ConditionEmbedder(nn.Module):
    """The timestep to modulation in float32, the caption's features to tokens."""

    def __init__(self, spec: CustomDiTSpec) -> None:
        super().__init__()
        self.time_embedder = TimeEmbedder(spec.freq_dim, spec.hidden_size)
        self.time_proj = Float32Linear(spec.hidden_size, 6 * spec.hidden_size)
        self.text_embedder = TextEmbedder(spec.text_dim, spec.hidden_size)

    def forward(self, timestep_B: Tensor, text_BLT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows `[B, D]` for the output, `[B, 6, D]` for the blocks, and text tokens `[B, L, D]`."""
        time_BD = self.time_embedder(timestep_B)
        time_B6D = self.time_proj(F.silu(time_BD)).unflatten(-1, (6, -1))
        return time_BD, time_B6D, self.text_embedder(text_BLT)


class Block(nn.Module):
    """Self-attention, cross-attention from the same normed stream, feed-forward."""

    def __init__(self, spec: CustomDiTSpec, ops: Ops) -> None:
        super().__init__()
        dim, heads = spec.hidden_size, spec.num_attention_heads
        self.norm1 = Float32LayerNorm(dim, EPS)
        self.attn1 = SelfAttention(dim, heads, EPS, ops)
        self.attn2 = CrossAttention(dim, heads, EPS, ops, image_branch=False)
        self.ffn = FeedForward(dim, spec.ffn_dim, dim, approximate="tanh")
        self.norm3 = Float32LayerNorm(dim, EPS)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, dim))

    def forward(self, x_BSD: Tensor, text_BLD: Tensor, time_B6D: Tensor, rope: Rope) -> Tensor:
        """One residual step of the stream."""
        rows = (self.scale_shift_table.float() + time_B6D).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = rows
        normed = modulated(self.norm1(x_BSD), shift, scale)
        x_BSD = gated(x_BSD, self.attn1(normed, rope), gate)
        x_BSD = x_BSD + self.attn2(normed, text_BLD, None)
        fed = self.ffn(modulated(self.norm3(x_BSD), ffn_shift, ffn_scale))
        return gated(x_BSD, fed, ffn_gate)


class CustomDiT(nn.Module):
    """Predicts the velocity of noised video latents from their timestep and caption."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, spec: CustomDiTSpec, ops: Ops) -> None:
        super().__init__()
        dim, patch = spec.hidden_size, spec.patch_size
        self.spec = spec
        self.patch_embedding = PatchEmbedding(spec.in_channels, dim, kernel_size=patch, stride=patch)
        self.condition_embedder = ConditionEmbedder(spec)
        self.blocks = nn.ModuleList([Block(spec, ops) for _ in range(spec.num_layers)])
        self.norm_out = nn.LayerNorm(dim, EPS, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, spec.out_channels * math.prod(patch))
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, dim))
        self.init_buffers(torch.get_default_device())

    def forward(self, latents_BCTHW: Tensor, timestep_B: Tensor, text_BLT: Tensor) -> Tensor:
        """The velocity, in the latents' dtype."""
        sizes = zip(latents_BCTHW.shape[2:], self.spec.patch_size, strict=True)
        frames, height, width = (size // patch for size, patch in sizes)
        grid = frames, height, width
        rope = grid_table((self.rope_cos, self.rope_sin), grid)
        time_BD, time_B6D, text_BLD = self.condition_embedder(timestep_B, text_BLT)
        x_BSD = self.patch_embedding(latents_BCTHW)
        for block in self.blocks:
            x_BSD = block(x_BSD, text_BLD, time_B6D, rope)
        shift, scale = (self.scale_shift_table.float() + time_BD.unsqueeze(1)).chunk(2, dim=1)
        x_BSD = modulated(self.norm_out(x_BSD.float()), shift, scale).type_as(x_BSD)
        return unpatchify(self.proj_out(x_BSD), grid, self.spec.patch_size).type_as(latents_BCTHW)

    def init_buffers(self, device: torch.device | str) -> None:
        """Computes the rotary tables, which are not saved, on a device."""
        cos, sin = axis_table(self.spec.head_dim, self.spec.rope_max_seq_len, device)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def draw(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """A parameter's first value: PyTorch's own rules, and normal tables of variance 1 / D."""
        owner, _, kind = name.rpartition(".")
        if kind == "scale_shift_table":
            return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
        if "norm" in owner:
            return torch.ones(shape) if kind == "weight" else torch.zeros(shape)
        bound = 1 / math.sqrt(math.prod(self.get_parameter(f"{owner}.weight").shape[1:]))
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def modulated(x_BSD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """x (1 + scale) + shift in float32, in x's dtype."""
    return torch.addcmul(shift_B1D, x_BSD.float(), 1 + scale_B1D).type_as(x_BSD)


def gated(x_BSD: Tensor, branch_BSD: Tensor, gate_B1D: Tensor) -> Tensor:
    """x + gate * branch in float32, in x's dtype."""
    return torch.addcmul(x_BSD.float(), branch_BSD.float(), gate_B1D).type_as(x_BSD)

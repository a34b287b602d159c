"""The Wan diffusion transformer's architecture.

Field names follow diffusers' `WanTransformer3DModel` configuration, except that the width is stored
(`hidden_size`) and the head's width follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.errors import Problem
from mm_config.schema import field, spec
from mm_config.specs.kinds import ModelSpec


@spec("wan-transformer")
class WanTransformerSpec(ModelSpec):
    """Wan's video diffusion transformer (text to video)."""

    hidden_size: int = field(ge=1)
    """Width of the residual stream."""
    num_attention_heads: int = field(ge=1)
    """Attention heads; must divide hidden_size into even widths that 3D RoPE can split."""
    ffn_dim: int = field(ge=1)
    """Width of the feed-forward network."""
    num_layers: int = field(ge=1)
    """Transformer blocks."""
    in_channels: int = field(default=16, ge=1)
    """Channels of the latents that go in."""
    out_channels: int = field(default=16, ge=1)
    """Channels of the velocity that comes out."""
    patch_size: tuple[int, int, int] = field(default=(1, 2, 2), ge=1, unit="latent cells")
    """Latent cells per token along frames, height and width."""
    text_dim: int = field(default=4096, ge=1)
    """Width of the text encoder's features."""
    freq_dim: int = field(default=256, ge=2)
    """Width of the sinusoidal timestep features; even."""
    cross_attn_norm: bool = True
    """Whether the input of cross-attention is normalised (all published Wan weights: yes)."""
    eps: float = field(default=1e-6, gt=0)
    """Epsilon of all norms."""
    rope_max_seq_len: int = field(default=1024, ge=1, unit="tokens")
    """Longest axis of the rotary position table."""

    @property
    def attention_head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    def problems(self) -> Iterator[Problem]:
        """Rules between this spec's fields."""
        heads, width = self.num_attention_heads, self.hidden_size
        if width % heads:
            divisors = (n for n in range(1, width + 1) if width % n == 0)
            near = sorted(divisors, key=lambda n: abs(n - heads))[:2]
            yield Problem(
                "num_attention_heads",
                f"{heads} heads do not divide hidden_size {width}; nearest that do: {_listed(near)}",
            )
        elif self.attention_head_dim % 2:
            yield Problem(
                "num_attention_heads", f"head width {self.attention_head_dim} must be even for RoPE"
            )
        elif self.attention_head_dim < 6:
            yield Problem(
                "num_attention_heads",
                f"head width {self.attention_head_dim} is below 6, the least that RoPE splits in three",
            )
        if self.freq_dim % 2:
            yield Problem("freq_dim", f"must be even, got {self.freq_dim}")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes equal to diffusers' `WanTransformer3DModel`."""
        d, f, patch = self.hidden_size, self.ffn_dim, self.patch_size
        shapes: dict[str, tuple[int, ...]] = {}

        def linear(name: str, out_features: int, in_features: int) -> None:
            shapes[f"{name}.weight"] = (out_features, in_features)
            shapes[f"{name}.bias"] = (out_features,)

        shapes["scale_shift_table"] = (1, 2, d)
        shapes["patch_embedding.weight"] = (d, self.in_channels, *patch)
        shapes["patch_embedding.bias"] = (d,)
        linear("condition_embedder.time_embedder.linear_1", d, self.freq_dim)
        linear("condition_embedder.time_embedder.linear_2", d, d)
        linear("condition_embedder.time_proj", 6 * d, d)
        linear("condition_embedder.text_embedder.linear_1", d, self.text_dim)
        linear("condition_embedder.text_embedder.linear_2", d, d)
        for index in range(self.num_layers):
            block = f"blocks.{index}"
            shapes[f"{block}.scale_shift_table"] = (1, 6, d)
            for attention in ("attn1", "attn2"):
                for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                    linear(f"{block}.{attention}.{projection}", d, d)
                shapes[f"{block}.{attention}.norm_q.weight"] = (d,)
                shapes[f"{block}.{attention}.norm_k.weight"] = (d,)
            if self.cross_attn_norm:
                shapes[f"{block}.norm2.weight"] = (d,)
                shapes[f"{block}.norm2.bias"] = (d,)
            linear(f"{block}.ffn.net.0.proj", f, d)
            linear(f"{block}.ffn.net.2", d, f)
        linear("proj_out", self.out_channels * math.prod(patch), d)
        return shapes

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """One token per patch."""
        return math.prod(size // patch for size, patch in zip(latent_shape, self.patch_size, strict=True))

    def forward_flops(self, latent_shape: tuple[int, int, int], text_tokens: int) -> int:
        """Matrix products of one sample; norms, modulation and activations are left out."""
        s, d, f, patch = self.tokens(latent_shape), self.hidden_size, self.ffn_dim, math.prod(self.patch_size)
        self_attention = 8 * s * d * d + 4 * s * s * d
        cross_attention = 4 * s * d * d + 4 * text_tokens * d * d + 4 * s * text_tokens * d
        block = self_attention + cross_attention + 4 * s * d * f
        ends = 2 * s * d * patch * (self.in_channels + self.out_channels)
        time = 2 * (self.freq_dim * d + d * d + 6 * d * d)
        text = 2 * text_tokens * (self.text_dim * d + d * d)
        return self.num_layers * block + ends + time + text

    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """An estimate, 20 hidden + 2 ffn values per token, for a block whose norms are fused.

        The block's input, two norm outputs, q, k, v before and after norm and rotation, attention
        output, projections, the cross-attention's set, and the feed-forward width twice.
        """
        return self.tokens(latent_shape) * (20 * self.hidden_size + 2 * self.ffn_dim)


def _listed(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in sorted(numbers))

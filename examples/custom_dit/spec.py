"""What a CustomDiT is; importing it needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.schema import Problem, field, spec
from mm_config.specs import ModelSpec


@spec("custom-dit")
class CustomDiTSpec(ModelSpec):
    """A video diffusion transformer of one's own, after Wan's."""

    num_layers: int = field(default=40, ge=1, le=1000)
    """Transformer blocks."""
    num_attention_heads: int = field(default=40, ge=1, le=4096)
    """Attention heads."""
    head_dim: int = field(default=128, ge=6, le=1024)
    """Width of one head; even, and at least 6 for RoPE over three axes."""
    ffn_dim: int = field(default=13824, ge=1)
    """Width of the feed-forward network."""
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
    rope_max_seq_len: int = field(default=1024, ge=1, unit="tokens")
    """Longest axis of the rotary position table."""

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.head_dim

    def problems(self) -> Iterator[Problem]:
        """Rules between this spec's fields."""
        for name in ("head_dim", "freq_dim"):
            if getattr(self, name) % 2:
                yield Problem(name, f"must be even, got {getattr(self, name)}")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes as in the network."""
        d, patch = self.hidden_size, self.patch_size
        shapes: dict[str, tuple[int, ...]] = {"scale_shift_table": (1, 2, d)}

        def add(name: str, *weight: int) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

        add("patch_embedding", d, self.in_channels, *patch)
        add("condition_embedder.time_embedder.linear_1", d, self.freq_dim)
        add("condition_embedder.time_embedder.linear_2", d, d)
        add("condition_embedder.time_proj", 6 * d, d)
        add("condition_embedder.text_embedder.linear_1", d, self.text_dim)
        add("condition_embedder.text_embedder.linear_2", d, d)
        for index in range(self.num_layers):
            block = f"blocks.{index}"
            shapes[f"{block}.scale_shift_table"] = (1, 6, d)
            add(f"{block}.norm1", d)
            for attention in ("attn1", "attn2"):
                for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                    add(f"{block}.{attention}.{projection}", d, d)
                shapes[f"{block}.{attention}.norm_q.weight"] = (d,)
                shapes[f"{block}.{attention}.norm_k.weight"] = (d,)
            add(f"{block}.ffn.net.0.proj", self.ffn_dim, d)
            add(f"{block}.ffn.net.2", d, self.ffn_dim)
            add(f"{block}.norm3", d)
        add("proj_out", self.out_channels * math.prod(patch), d)
        return shapes

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """One token per patch."""
        return math.prod(size // patch for size, patch in zip(latent_shape, self.patch_size, strict=True))

    def forward_flops(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """Matrix products of one sample; there is no image branch."""
        return sum(self.flops_by_part(latent_shape, text_tokens).values())

    def flops_by_part(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> dict[str, int]:
        """What `forward_flops` is the sum of."""
        s, d, layers = self.tokens(latent_shape), self.hidden_size, self.num_layers
        ends = math.prod(self.patch_size) * (self.in_channels + self.out_channels)
        return {
            "self_attention_core": layers * 4 * s * s * d,
            "cross_attention_core": layers * 4 * s * text_tokens * d,
            "projections": layers * 12 * s * d * d,
            "feed_forward": layers * 4 * s * d * self.ffn_dim,
            "ends": 2 * s * d * ends,
            "time": 2 * d * (self.freq_dim + 7 * d),
            "text": text_tokens * 2 * d * (self.text_dim + d + 2 * layers * d),
        }

    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """About 20 hidden + 2 ffn values per token, as in Wan's block."""
        return self.tokens(latent_shape) * (20 * self.hidden_size + 2 * self.ffn_dim)

    def block_input_values(self, latent_shape: tuple[int, int, int]) -> int:
        """The residual stream."""
        return self.tokens(latent_shape) * self.hidden_size

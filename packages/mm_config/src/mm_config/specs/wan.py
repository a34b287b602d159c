"""The Wan diffusion transformer's architecture.

Field names follow diffusers' `WanTransformer3DModel` configuration, except that the width is stored
(`hidden_size`) and the head's width follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.schema.decorator import spec
from mm_config.schema.errors import Problem
from mm_config.schema.fields import field
from mm_config.specs.kinds import Conditioning, ModelSpec, Split


@spec("wan-transformer")
class WanTransformerSpec(ModelSpec):
    """Wan's video diffusion transformer."""

    hidden_size: int = field(ge=1, le=65_536)
    """Width of the residual stream."""
    num_attention_heads: int = field(ge=1, le=4096)
    """Attention heads; must divide hidden_size into even widths that 3D RoPE can split."""
    ffn_dim: int = field(ge=1, le=1_048_576)
    """Width of the feed-forward network."""
    num_layers: int = field(ge=1, le=1000)
    """Transformer blocks."""
    in_channels: int = field(default=16, ge=1, le=65_536)
    """Channels of the latents that go in."""
    out_channels: int = field(default=16, ge=1, le=65_536)
    """Channels of the velocity that comes out."""
    patch_size: tuple[int, int, int] = field(default=(1, 2, 2), ge=1, le=1_024, unit="latent cells")
    """Latent cells per token along frames, height and width."""
    text_dim: int = field(default=4096, ge=1, le=65_536)
    """Width of the text encoder's features."""
    freq_dim: int = field(default=256, ge=2, le=65_536)
    """Width of the sinusoidal timestep features; even."""
    cross_attn_norm: bool = True
    """Whether the input of cross-attention is normalised (all published Wan weights: yes)."""
    eps: float = field(default=1e-6, gt=0)
    """Epsilon of all norms."""
    rope_max_seq_len: int = field(default=1024, ge=1, le=1_048_576, unit="tokens")
    """Longest axis of the rotary position table."""
    conditioning: Conditioning = field(default=Conditioning.TEXT, neutral=Conditioning.TEXT)
    """What the network sees beside noise, timestep and caption."""
    image_dim: int | None = field(default=None, neutral=None, ge=1, le=65_536)
    """Width of the image encoder's features; None where there is no image branch (all of Wan2.2)."""
    image_positions: int | None = field(default=None, neutral=None, ge=1, le=1_048_576, unit="tokens")
    """Rows of a learned position table over image features (FLF2V: two images of 257); None for none."""

    @property
    def attention_head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    def problems(self) -> Iterator[Problem]:
        """Rules between this spec's fields."""
        heads, width = self.num_attention_heads, self.hidden_size
        if width % heads:
            divisors = (n for n in range(1, width + 1) if width % n == 0)
            near = " or ".join(map(str, sorted(sorted(divisors, key=lambda n: abs(n - heads))[:2])))
            yield Problem(
                "num_attention_heads",
                f"{heads} heads do not divide hidden_size {width}; nearest that do: {near}",
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
        if self.image_positions is not None and self.image_dim is None:
            yield Problem(
                "image_positions",
                f"is {self.image_positions}, but image_dim is None: there is no image branch",
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
        if self.image_dim is not None:
            self._add_image_embedder(shapes, self.image_dim)
        for index in range(self.num_layers):
            block = f"blocks.{index}"
            shapes[f"{block}.scale_shift_table"] = (1, 6, d)
            for attention in ("attn1", "attn2"):
                for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                    linear(f"{block}.{attention}.{projection}", d, d)
                shapes[f"{block}.{attention}.norm_q.weight"] = (d,)
                shapes[f"{block}.{attention}.norm_k.weight"] = (d,)
            if self.image_dim is not None:
                linear(f"{block}.attn2.add_k_proj", d, d)
                linear(f"{block}.attn2.add_v_proj", d, d)
                shapes[f"{block}.attn2.norm_added_k.weight"] = (d,)
            if self.cross_attn_norm:
                shapes[f"{block}.norm2.weight"] = (d,)
                shapes[f"{block}.norm2.bias"] = (d,)
            linear(f"{block}.ffn.net.0.proj", f, d)
            linear(f"{block}.ffn.net.2", d, f)
        linear("proj_out", self.out_channels * math.prod(patch), d)
        return shapes

    def _add_image_embedder(self, shapes: dict[str, tuple[int, ...]], image_dim: int) -> None:
        embedder, d = "condition_embedder.image_embedder", self.hidden_size
        if self.image_positions is not None:
            shapes[f"{embedder}.pos_embed"] = (1, self.image_positions, image_dim)
        layers = {
            "norm1": (image_dim,),
            "ff.net.0.proj": (image_dim, image_dim),
            "ff.net.2": (d, image_dim),
            "norm2": (d,),
        }
        for name, shape in layers.items():
            shapes[f"{embedder}.{name}.weight"], shapes[f"{embedder}.{name}.bias"] = shape, shape[:1]

    def tensor_plan(self) -> dict[str, Split]:
        """Heads and the feed-forward width; queries and keys are normed over all heads together."""
        return {
            "blocks.*.{attn1,attn2,ffn}": Split.INSIDE,
            "blocks.*.attn?.{to_q,to_k,to_v,add_k_proj,add_v_proj}": Split.OUTPUTS,
            "blocks.*.attn?.{norm_q,norm_k,norm_added_k}": Split.NORM,
            "blocks.*.attn?.to_out.0": Split.INPUTS,
            "blocks.*.ffn.net.0.proj": Split.OUTPUTS,
            "blocks.*.ffn.net.2": Split.INPUTS,
        }

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """One token per patch."""
        return math.prod(self.token_grid(latent_shape))

    def stays_float32(self, parameter: str) -> bool:
        """Norms, modulation tables and the time embedder, which Wan's code and diffusers never round."""
        parts = parameter.split(".")
        return "time_embedder" in parts or any(part.startswith(("norm", "scale_shift")) for part in parts)

    def parameter_count(self) -> int:
        """The sum over `parameter_shapes`, from one block: it takes no longer for many layers."""
        d, f, patch = self.hidden_size, self.ffn_dim, math.prod(self.patch_size)
        linear = d * d + d
        # Two attentions with four linear layers and two norms, the feed-forward network, the modulation.
        block = 8 * linear + 4 * d + (f * d + f) + (d * f + d) + 6 * d
        time = (self.freq_dim * d + d) + linear + 6 * linear
        text = (self.text_dim * d + d) + linear
        patches, out = self.in_channels * patch, self.out_channels * patch
        count = (patches * d + d) + time + text + (out * d + out) + 2 * d
        if self.cross_attn_norm:
            block += 2 * d
        if self.image_dim is not None:
            block += 2 * linear + d
            image = self.image_dim
            count += (self.image_positions or 0) * image + 2 * image + 2 * d
            count += (image * image + image) + (image * d + d)
        return count + self.num_layers * block

    def forward_flops(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """Matrix products of one sample; norms, modulation and activations are left out."""
        return sum(self.flops_by_part(latent_shape, text_tokens, image_tokens).values())

    def flops_by_part(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> dict[str, int]:
        """What `forward_flops` is the sum of.

        `text` and `image` are what their tokens cost wherever they go: their embedding and each block's
        keys and values. `ends` are the patch embedding and the output layer.
        """
        s, d, f, patch = self.tokens(latent_shape), self.hidden_size, self.ffn_dim, math.prod(self.patch_size)
        image_dim = self.image_dim or 0
        image_tokens = image_tokens if self.image_dim is not None else 0
        block = {
            "self_attention_core": 4 * s * s * d,
            "self_attention_projections": 8 * s * d * d,
            "cross_attention_core": 4 * s * (text_tokens + image_tokens) * d,
            "cross_attention_projections": 4 * s * d * d,
            "feed_forward": 4 * s * d * f,
        }
        keys_and_values = 4 * d * d * self.num_layers
        return {
            **{part: self.num_layers * count for part, count in block.items()},
            "ends": 2 * s * d * patch * (self.in_channels + self.out_channels),
            "time": 2 * (self.freq_dim * d + d * d + 6 * d * d),
            "text": text_tokens * (2 * (self.text_dim * d + d * d) + keys_and_values),
            "image": image_tokens * (2 * (image_dim * image_dim + image_dim * d) + keys_and_values),
        }

    def flops_outside_blocks(
        self, latent_shape: tuple[int, int, int], text_tokens: int, image_tokens: int = 0
    ) -> int:
        """The ends, and the embedders of timesteps, texts and images."""
        parts = self.flops_by_part(latent_shape, text_tokens, image_tokens)
        image_tokens = image_tokens if self.image_dim is not None else 0
        keys_and_values = 4 * self.hidden_size**2 * self.num_layers * (text_tokens + image_tokens)
        return sum(parts[part] for part in ("ends", "time", "text", "image")) - keys_and_values

    def block_activation_values(self, latent_shape: tuple[int, int, int]) -> int:
        """18 hidden + ffn values per token, where norms are fused and GELU is computed again.

        The residual stream three times, q and k before and after norm and rotation, v, outputs of attention,
        of norms and of projections, the cross-attention's set, and the feed-forward width. A test counts.
        """
        return self.tokens(latent_shape) * (18 * self.hidden_size + self.ffn_dim)

    def block_gradient_values(self, latent_shape: tuple[int, int, int]) -> int:
        """The stream's gradient, and the activation or its gradient."""
        return self.tokens(latent_shape) * (self.hidden_size + self.ffn_dim)

    def inference_values(self, latent_shape: tuple[int, int, int], text_tokens: int) -> int:
        """In the feed-forward: its hidden values, whose place GELU takes, what goes in and comes out, the
        stream as it came into the block, as attention left it, and both attentions' sum; or eight streams in
        attention. A test counts. The caption is there at the network's width, as itself, keys and values.
        """
        d = self.hidden_size
        return self.tokens(latent_shape) * max(6 * d + self.ffn_dim, 8 * d) + 3 * text_tokens * d

    def position_values(self, latent_shape: tuple[int, int, int]) -> int:
        """Cosines and sines."""
        return 2 * self.tokens(latent_shape) * self.attention_head_dim

    def widened_values(self) -> int:
        """The projection of the timestep."""
        return 6 * self.hidden_size**2

    def block_input_values(self, latent_shape: tuple[int, int, int]) -> int:
        """The residual stream."""
        return self.tokens(latent_shape) * self.hidden_size

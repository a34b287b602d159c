"""Autoencoders and text encoders."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import field
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import AutoencoderSpec, ImageEncoderSpec, TextEncoderSpec, Weights


class LatentMode(enum.Enum):
    """What is taken of the encoder's posterior."""

    MODE = "mode"
    SAMPLE = "sample"


@spec("dct-autoencoder")
class DctAutoencoderSpec(AutoencoderSpec):
    """A weight-free autoencoder: a fixed orthonormal DCT that keeps the lowest frequencies.

    The first frame has a latent frame of its own, like Wan's causal autoencoder.
    """

    latent_channels: int = field(default=48, ge=1, le=768)
    """DCT coefficients kept per cell, lowest frequencies first."""
    temporal_stride: int = field(default=4, ge=1, le=1_024, unit="frames")
    """Frames per latent frame after the first."""
    spatial_stride: int = field(default=8, ge=1, le=1_024, unit="pixels")
    """Pixels per latent cell along height and width."""
    revision: int = field(default=1, ge=1)
    """Version of the frequency order and the normalisation literals."""


@spec("wan-autoencoder")
class WanAutoencoderSpec(AutoencoderSpec):
    """Wan's causal 3D autoencoder (diffusers' `AutoencoderKLWan`); defaults are Wan2.1's."""

    weights: Weights
    """Where the weights come from."""
    latent_channels: int = field(default=16, ge=1, le=65_536)
    """Channels of the latents."""
    temporal_stride: int = field(default=4, ge=1, le=1_024, unit="frames")
    """Frames per latent frame after the first."""
    spatial_stride: int = field(default=8, ge=1, le=1_024, unit="pixels")
    """Pixels per latent cell along height and width."""
    base_dim: int = field(default=96, ge=1, le=65_536)
    """Width of the first encoder stage."""
    dim_mult: tuple[int, ...] = field(default=(1, 2, 4, 4), ge=1, le=1_024, min_length=1)
    """Width of each stage as a multiple of base_dim."""
    num_res_blocks: int = field(default=2, ge=1, le=100)
    """Residual blocks per stage."""
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    """Which stage transitions halve the frame rate."""
    latent_mode: LatentMode = LatentMode.MODE
    """Whether latents are the posterior's mode or a sample of it."""
    dtype: Dtype = Dtype.FLOAT32
    """Format of the network."""
    tiling: bool = False
    """Whether large videos are encoded and decoded in spatial tiles, which are blended where they overlap."""
    tile_size: tuple[int, int] = field(
        default=(256, 256), neutral=(256, 256), ge=16, le=65_536, unit="pixels"
    )
    """Height and width of a tile."""
    tile_stride: tuple[int, int] = field(
        default=(192, 192), neutral=(192, 192), ge=16, le=65_536, unit="pixels"
    )
    """Distance of neighbouring tiles along height and width; they overlap where it is below the size."""
    patch_size: int = field(default=1, neutral=1, ge=1, le=1_024, unit="pixels")
    """Pixels that are folded into channels before the first stage (Wan2.2's: 2)."""
    decoder_base_dim: int | None = field(default=None, neutral=None, ge=1, le=65_536)
    """Width of the last decoder stage; None takes base_dim (Wan2.2's: 256)."""
    is_residual: bool = field(default=False, neutral=False)
    """Whether stages have shortcuts around their resampling (Wan2.2's)."""


@spec("clip-image-encoder")
class ClipImageEncoderSpec(ImageEncoderSpec):
    """Wan2.1's image encoder (transformers' `CLIPVisionModel`, layer before the last); defaults: ViT-H/14."""

    weights: Weights
    """Where the weights come from."""
    image_dim: int = field(default=1280, ge=1, le=65_536)
    """Width of the features."""
    image_size: int = field(default=224, ge=1, le=65_536, unit="pixels")
    """Height and width that a frame is resized to."""
    patch_size: int = field(default=14, ge=1, le=1_024, unit="pixels")
    """Pixels per token along height and width."""
    num_layers: int = field(default=32, ge=2, le=1_000)
    """Transformer layers."""
    num_heads: int = field(default=16, ge=1, le=4_096)
    """Attention heads."""
    d_ff: int = field(default=5120, ge=1, le=1_048_576)
    """Width of the feed-forward network."""
    dtype: Dtype = Dtype.FLOAT32
    """Format of the network."""

    @property
    def image_tokens(self) -> int:
        """Patches and the class token: 257 for ViT-H/14."""
        return (self.image_size // self.patch_size) ** 2 + 1


@spec("hashed-text-encoder")
class HashedTextEncoderSpec(TextEncoderSpec):
    """A weight-free text encoder: fixed hashed features of words and their n-grams."""

    text_dim: int = field(default=64, ge=1, le=65_536)
    """Width of the features."""
    max_tokens: int = field(default=16, ge=1, le=1_048_576, unit="tokens")
    """Longest caption; a longer one is an error."""
    ngrams: int = field(default=2, ge=1, le=1_000, unit="words")
    """Longest n-gram that is hashed."""
    revision: int = field(default=1, ge=1)
    """Version of the hash and the cleaning of text."""


@spec("umt5-text-encoder")
class Umt5TextEncoderSpec(TextEncoderSpec):
    """Wan's text encoder (transformers' `UMT5EncoderModel`); defaults are UMT5-XXL's."""

    weights: Weights
    """Where the weights and the tokenizer come from."""
    text_dim: int = field(default=4096, ge=1, le=65_536)
    """Width of the features (d_model)."""
    max_tokens: int = field(default=512, ge=1, le=1_048_576, unit="tokens")
    """Captions are padded with zeros to this length after encoding."""
    vocab_size: int = field(default=256384, ge=1, le=16_777_216)
    """Entries of the tokenizer."""
    num_layers: int = field(default=24, ge=1, le=1_000)
    """Transformer layers."""
    num_heads: int = field(default=64, ge=1, le=4_096)
    """Attention heads."""
    d_kv: int = field(default=64, ge=1, le=65_536)
    """Width of one head."""
    d_ff: int = field(default=10240, ge=1, le=1_048_576)
    """Width of the feed-forward network."""
    dtype: Dtype = Dtype.BFLOAT16
    """Format of the network."""
    truncate: bool = field(default=False, neutral=False)
    """Whether a longer caption is cut to max_tokens, its end mark kept, as Wan's code does; else refused."""

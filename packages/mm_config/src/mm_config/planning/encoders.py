"""Parameters and working memory of autoencoders, text encoders and image encoders.

The counts follow diffusers' `AutoencoderKLWan` and transformers' `UMT5EncoderModel` and `CLIPVisionModel`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs

from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import ClipImageEncoderSpec, Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.kinds import AutoencoderSpec, Conditioning, ImageEncoderSpec, ModelSpec, TextEncoderSpec

BYTES = {Dtype.FLOAT32: 4, Dtype.BFLOAT16: 2, Dtype.FLOAT16: 2}
"""Bytes per value."""

_UMT5_BUCKETS = 32
_CACHED_FRAMES = 2
_BORDERS = 1.02
"""What a border of a pixel around each side adds to a picture of about 200 pixels; less to larger ones."""


@attrs.frozen
class Encoder:
    """What one encoder takes up."""

    name: str
    """Which one."""
    parameters: int
    """How many."""
    bytes: int
    """Of its parameters."""


def encoders(
    text: TextEncoderSpec | None, image: ImageEncoderSpec | None, autoencoder: AutoencoderSpec | None
) -> tuple[Encoder, ...]:
    """The encoders that are given, with the memory of their weights."""
    found = {"text_encoder": text, "image_encoder": image, "autoencoder": autoencoder}
    return tuple(
        Encoder(name, count := encoder_parameters(spec), count * BYTES[getattr(spec, "dtype", Dtype.FLOAT32)])
        for name, spec in found.items()
        if spec is not None
    )


def encoder_parameters(spec: Any) -> int:
    """The parameters of an encoder; one of a class of its own has `parameter_count()`, or none."""
    if isinstance(spec, Umt5TextEncoderSpec):
        return umt5_parameters(spec)
    if isinstance(spec, ClipImageEncoderSpec):
        return clip_parameters(spec)
    if isinstance(spec, WanAutoencoderSpec):
        return autoencoder_parameters(spec)
    counted = getattr(spec, "parameter_count", None)
    return counted() if counted is not None else 0


def image_tokens(encoder: ImageEncoderSpec | None, model: ModelSpec) -> int:
    """Tokens of the given frames."""
    if encoder is None:
        return 0
    return encoder.image_tokens * (2 if model.conditioning is Conditioning.FIRST_AND_LAST_FRAME else 1)


def umt5_parameters(spec: Umt5TextEncoderSpec) -> int:
    """Token embedding; per layer attention with position biases of its own and a gated feed-forward."""
    d = spec.text_dim
    return spec.vocab_size * d + spec.num_layers * umt5_block_parameters(spec) + d


def umt5_block_parameters(spec: Umt5TextEncoderSpec) -> int:
    """Those of one layer."""
    d, inner = spec.text_dim, spec.num_heads * spec.d_kv
    return 4 * d * inner + _UMT5_BUCKETS * spec.num_heads + 3 * d * spec.d_ff + 2 * d


def clip_parameters(spec: ClipImageEncoderSpec) -> int:
    """Patch, class and position embeddings, the layers, and norms before and after them."""
    d, f = spec.image_dim, spec.d_ff
    embeddings = d + 3 * spec.patch_size**2 * d + spec.image_tokens * d
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    return embeddings + spec.num_layers * layer + 4 * d


def autoencoder_parameters(spec: WanAutoencoderSpec) -> int:
    """Encoder, decoder and the two pointwise convolutions between them."""
    z = spec.latent_channels
    pixels = 3 * spec.patch_size**2
    pointwise = _conv(2 * z, 2 * z, 1) + _conv(z, z, 1)
    return _encoder(spec, pixels, 2 * z) + _decoder(spec, z, pixels) + pointwise


def autoencoder_working_bytes(spec: AutoencoderSpec, height: int, width: int, decodes: bool) -> int:
    """What encoding or decoding one video holds at most beside the weights, the pixels and the latents.

    It goes through the network by the frames of one latent frame; a test counts. The stage at full size has
    most: two activations of what goes into it (decoding: three), and a convolution's input with the two
    frames before it, and once more with its borders padded. In 16 bits the norm's copies in float32 may be
    more.
    Two frames before each convolution are kept for the next latent frame.

    Args:
        spec: The autoencoder; those without weights need next to nothing.
        height, width: Of the video, in pixels.
        decodes: Whether latents are decoded; else a video is encoded.
    """
    if not isinstance(spec, WanAutoencoderSpec):
        return 0
    if spec.tiling:
        height, width = min(height, spec.tile_size[0]), min(width, spec.tile_size[1])
    cells = (height // spec.patch_size) * (width // spec.patch_size)
    size, frames = BYTES[spec.dtype], spec.temporal_stride
    kept, inside, outside = _decoder_widths(spec) if decodes else _encoder_widths(spec)
    activations, padded = 2 + decodes, 2 * _BORDERS * (frames + _CACHED_FRAMES) / frames
    if spec.is_residual:
        activations += 1 if decodes else 3  # The shortcut around a stage; an encoder's folds and averages.
    at_work = inside * (activations + padded)
    if size == 2:
        at_work = max(at_work, outside * (activations + 2 * 2))
    return int(cells * size * (frames * at_work + _CACHED_FRAMES * (kept + inside)))


def _decoder_widths(spec: WanAutoencoderSpec) -> tuple[float, int, int]:
    """Channels before all convolutions, less those of smaller stages; into, and out of the last stage."""
    base = spec.decoder_base_dim or spec.base_dim
    dims = [base * factor for factor in (spec.dim_mult[-1], *reversed(spec.dim_mult))]
    last, upsample = len(dims) - 2, spec.temporal_downsample[::-1]
    kept, width_in = (spec.latent_channels + 4 * dims[0]) / 4**last + dims[-1], dims[0]
    for stage, width_out in enumerate(dims[1:]):
        width_in = dims[stage] // 2 if stage and not spec.is_residual else dims[stage]
        in_time = width_out if stage < last and upsample[stage] else 0
        kept += (width_in + (2 * spec.num_res_blocks + 1) * width_out + in_time) / 4 ** (last - stage)
    return kept, width_in, dims[-1]


def _encoder_widths(spec: WanAutoencoderSpec) -> tuple[float, int, int]:
    """As `_decoder_widths`; into, and out of the first stage."""
    dims = [spec.base_dim * factor for factor in (1, *spec.dim_mult)]
    kept, last = 3.0 * spec.patch_size**2, len(dims) - 2
    for stage, (width_in, width_out) in enumerate(pairwise(dims)):
        kept += (width_in + (2 * spec.num_res_blocks - 1) * width_out) / 4**stage
    return kept + 5 * dims[-1] / 4**last, dims[0], dims[1]


def _encoder(spec: WanAutoencoderSpec, pixels: int, z: int) -> int:
    dims = [spec.base_dim * factor for factor in (1, *spec.dim_mult)]
    count = _conv(pixels, dims[0], 27)
    for stage, (width_in, width_out) in enumerate(pairwise(dims)):
        count += _blocks(width_in, width_out, spec.num_res_blocks)
        if stage < len(spec.temporal_downsample):
            count += _conv(width_out, width_out, 9)
            count += _conv(width_out, width_out, 3) if spec.temporal_downsample[stage] else 0
    return count + _middle(dims[-1]) + dims[-1] + _conv(dims[-1], z, 27)


def _decoder(spec: WanAutoencoderSpec, z: int, pixels: int) -> int:
    base = spec.decoder_base_dim or spec.base_dim
    dims = [base * factor for factor in (spec.dim_mult[-1], *reversed(spec.dim_mult))]
    upsample = spec.temporal_downsample[::-1]
    count = _conv(z, dims[0], 27) + _middle(dims[0])
    for stage, (width_in, width_out) in enumerate(pairwise(dims)):
        halved = stage > 0 and not spec.is_residual
        count += _blocks(width_in // 2 if halved else width_in, width_out, spec.num_res_blocks + 1)
        if stage < len(upsample):
            count += _conv(width_out, width_out if spec.is_residual else width_out // 2, 9)
            count += _conv(width_out, 2 * width_out, 3) if upsample[stage] else 0
    return count + dims[-1] + _conv(dims[-1], pixels, 27)


def _middle(width: int) -> int:
    attention = width + _conv(width, 3 * width, 1) + _conv(width, width, 1)
    return _blocks(width, width, 2) + attention


def _blocks(width_in: int, width_out: int, number: int) -> int:
    """Residual blocks in a row: two norms, two convolutions, a shortcut where the width changes."""
    first = width_in + _conv(width_in, width_out, 27) + width_out + _conv(width_out, width_out, 27)
    first += _conv(width_in, width_out, 1) if width_in != width_out else 0
    later = 2 * width_out + 2 * _conv(width_out, width_out, 27)
    return first + (number - 1) * later


def _conv(channels_in: int, channels_out: int, taps: int) -> int:
    return channels_in * channels_out * taps + channels_out

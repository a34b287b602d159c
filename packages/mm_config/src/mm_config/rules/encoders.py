"""Rules inside autoencoders and image encoders, and between the text encoder and the network."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.rules.wording import divisor_problems, pixel_problems
from mm_config.schema.errors import Problem
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import (
    ClipImageEncoderSpec,
    DctAutoencoderSpec,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
)
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec


def sharing_problems(spec: TrainSpec) -> Iterator[Problem]:
    """Ranks share encoders only where each of them encodes as often as the others, between steps."""
    before = spec.data.precomputed
    computed = before is not None and before.text and before.latents
    if spec.runtime.shard_encoders and (computed or spec.data.cache is Cache.LATENTS):
        kept = (
            "everything is precomputed" if computed else "data.cache = latents encodes before, whole on each"
        )
        yield Problem("runtime.shard_encoders", f"is True, but {kept}; set it to False")


def dct_problems(spec: DctAutoencoderSpec) -> Iterator[Problem]:
    """A cell has no more coefficients than values."""
    coefficients = 3 * spec.temporal_stride * spec.spatial_stride**2
    if spec.latent_channels > coefficients:
        yield Problem(
            "latent_channels",
            f"is {spec.latent_channels}, but a cell of {spec.temporal_stride} frames of "
            f"{spec.spatial_stride}x{spec.spatial_stride} pixels has {coefficients} coefficients",
        )


def wan_autoencoder_problems(spec: WanAutoencoderSpec) -> Iterator[Problem]:
    """The strides follow from the stages, and tiles are whole cells that leave no gap."""
    transitions = len(spec.dim_mult) - 1
    if len(spec.temporal_downsample) != transitions:
        yield Problem(
            "temporal_downsample",
            f"has {len(spec.temporal_downsample)} entries, but the {len(spec.dim_mult)} of dim_mult "
            f"need {transitions}, one per stage transition",
        )
    elif (stride := 2 ** sum(spec.temporal_downsample)) != spec.temporal_stride:
        yield Problem(
            "temporal_stride", f"is {spec.temporal_stride}, but temporal_downsample makes it {stride}"
        )
    spatial = spec.patch_size * 2**transitions
    if spatial != spec.spatial_stride:
        yield Problem(
            "spatial_stride",
            f"is {spec.spatial_stride}, but patch_size {spec.patch_size} and {len(spec.dim_mult)} stages "
            f"make it {spatial}",
        )
    if spec.tiling:
        yield from _tile_problems(spec)


def _tile_problems(spec: WanAutoencoderSpec) -> Iterator[Problem]:
    for name, sizes in (("tile_size", spec.tile_size), ("tile_stride", spec.tile_stride)):
        for index, pixels in enumerate(sizes):
            yield from pixel_problems(f"{name}.{index}", pixels, spec.spatial_stride)
    for index, (size, stride) in enumerate(zip(spec.tile_size, spec.tile_stride, strict=True)):
        if stride > size:
            yield Problem(
                f"tile_stride.{index}", f"is {stride}, above tile_size {size}: tiles would leave gaps"
            )


def clip_encoder_problems(spec: ClipImageEncoderSpec) -> Iterator[Problem]:
    """Patches fill the image, heads the width."""
    yield from pixel_problems("image_size", spec.image_size, spec.patch_size, "patch_size ")
    width = f"image_dim {spec.image_dim}"
    yield from divisor_problems("num_heads", spec.num_heads, spec.image_dim, width, what="heads do")


def umt5_problems(spec: Umt5TextEncoderSpec) -> Iterator[Problem]:
    """Features of T5 networks exceed float16's largest number, 65504."""
    if spec.dtype is Dtype.FLOAT16:
        yield Problem("dtype", "is float16, whose range T5's features leave; choose bfloat16 or float32")


def text_problems(spec: TrainSpec | InferSpec, path: str) -> Iterator[Problem]:
    """The network takes what the text encoder gives."""
    text_dim = spec.text_encoder.text_dim
    if spec.model.text_dim != text_dim:
        yield Problem(
            "model.text_dim",
            f"is {spec.model.text_dim}, but {path}.text_encoder.text_dim is {text_dim}; make them equal",
        )

"""Rules on a clip's size: it must fill whole latent cells and whole patches."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mm_config.rules.sizes import cells
from mm_config.rules.wording import either, nearest_multiples, pixel_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.data import DataSpec, Resize
from mm_config.specs.kinds import AutoencoderSpec, Conditioning, ModelSpec


def size_problems(
    size: tuple[int, int, int], model: ModelSpec, autoencoder: AutoencoderSpec
) -> Iterator[Problem]:
    """Frames, height and width that the autoencoder or the patches would cut off.

    Args:
        size: `(num_frames, height, width)`.
        model: The network, for its patch size.
        autoencoder: For its strides.
    """
    num_frames, height, width = size
    if message := frames_message(num_frames, model, autoencoder):
        yield Problem("num_frames", message)
    elif model.conditioning in (Conditioning.FIRST_FRAME, Conditioning.FIRST_AND_LAST_FRAME):
        step, first = frame_steps(model, autoencoder)
        if num_frames == 1:
            given = model.conditioning.value
            yield Problem(
                "num_frames",
                f"1 frame leaves nothing to make where {given} is given; at least {first + step}",
            )
    if model.rope_max_seq_len is not None:
        yield from _rope_problems(size, model, autoencoder, model.rope_max_seq_len)
    for name, pixels, cell in zip(
        ("height", "width"), (height, width), cells(model, autoencoder), strict=True
    ):
        yield from pixel_problems(name, pixels, cell)


def frame_steps(model: ModelSpec, autoencoder: AutoencoderSpec) -> tuple[int, int]:
    """`(step, first)`: clips have `step * k + first` frames.

    The first frame has a latent frame of its own, and latent frames fill whole patches.
    """
    stride, patch = autoencoder.temporal_stride, model.patch_size[0]
    return stride * patch, stride * (patch - 1) + 1


def frames_message(num_frames: int, model: ModelSpec, autoencoder: AutoencoderSpec) -> str | None:
    """Why a clip can't have these frames, with the nearest numbers; None where it can."""
    step, first = frame_steps(model, autoencoder)
    if num_frames >= first and (num_frames - first) % step == 0:
        return None
    legal = [number for number in nearest_multiples(num_frames, step, first) if number >= first]
    frames = "1 frame is" if num_frames == 1 else f"{num_frames} frames are"
    return f"{frames} not of the form {step}k+{first}; nearest: {either(legal)}"


def clip_problems(data: DataSpec, model: ModelSpec, autoencoder: AutoencoderSpec) -> Iterator[Problem]:
    """The sizes that the data gives its clips; paths start inside the data."""
    if data.buckets:
        yield from _bucket_problems(data, model, autoencoder)
    else:
        yield from size_problems((data.num_frames, data.height, data.width), model, autoencoder)
    if data.min_num_frames is not None and (
        message := frames_message(data.min_num_frames, model, autoencoder)
    ):
        yield Problem("min_num_frames", message)
    if data.resize is Resize.AREA and data.size_multiple is not None:
        yield from _multiple_problems(data, math.lcm(*cells(model, autoencoder)))


def _multiple_problems(data: DataSpec, cell: int) -> Iterator[Problem]:
    multiple = data.size_multiple or cell
    yield from pixel_problems("size_multiple", multiple, cell)
    if multiple % cell == 0 and multiple**2 > data.height * data.width:
        most = math.isqrt(data.height * data.width) // cell * cell
        yield Problem(
            "size_multiple",
            f"{multiple}x{multiple} pixels are more than height x width; at most {max(most, cell)}",
        )


def _bucket_problems(data: DataSpec, model: ModelSpec, autoencoder: AutoencoderSpec) -> Iterator[Problem]:
    sizes = [(bucket.num_frames, bucket.height, bucket.width) for bucket in data.buckets]
    for index, size in enumerate(sizes):
        yield from prefixed(size_problems(size, model, autoencoder), f"buckets.{index}")
        if size in sizes[:index]:
            yield Problem(
                f"buckets.{index}", f"has the size of buckets.{sizes.index(size)}; clips could go to either"
            )


def _rope_problems(
    size: tuple[int, int, int], model: ModelSpec, autoencoder: AutoencoderSpec, longest: int
) -> Iterator[Problem]:
    latent_shape = autoencoder.latent_shape(*size)
    frames, height, width = (longest * patch for patch in model.patch_size)
    stride = autoencoder.spatial_stride
    most = ((frames - 1) * autoencoder.temporal_stride + 1, height * stride, width * stride)
    axes = zip(("num_frames", "height", "width"), latent_shape, model.patch_size, most, strict=True)
    for name, count, patch, limit in axes:
        if count // patch > longest:
            yield Problem(
                name,
                f"makes {count // patch} tokens along this axis, model.rope_max_seq_len is {longest}; "
                f"at most {limit}",
            )

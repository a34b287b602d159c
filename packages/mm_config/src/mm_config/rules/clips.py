"""Rules on a clip's size: it must fill whole latent cells and whole patches."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.errors import Problem
from mm_config.rules.wording import either, nearest_multiples
from mm_config.specs.data import DataSpec, ShapesSpec
from mm_config.specs.kinds import AutoencoderSpec, ModelSpec
from mm_config.specs.wan import WanTransformerSpec


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
    patch_t, patch_h, patch_w = model.patch_size
    # The first frame has a latent frame of its own, and latent frames fill whole patches.
    step = autoencoder.temporal_stride * patch_t
    first = autoencoder.temporal_stride * (patch_t - 1) + 1
    if num_frames < first or (num_frames - first) % step:
        legal = [number for number in nearest_multiples(num_frames, step, first) if number >= first]
        formula = f"{step}k+{first}"
        yield Problem(
            "num_frames", f"{num_frames} frames are not of the form {formula}; nearest: {either(legal)}"
        )
    if isinstance(model, WanTransformerSpec):
        yield from _rope_problems(size, model, autoencoder)
    for name, pixels, patch in (("height", height, patch_h), ("width", width, patch_w)):
        cell = autoencoder.spatial_stride * patch
        if pixels % cell:
            legal = nearest_multiples(pixels, cell)
            yield Problem(name, f"{pixels} pixels are no multiple of {cell}; nearest: {either(legal)}")


def _rope_problems(
    size: tuple[int, int, int], model: WanTransformerSpec, autoencoder: AutoencoderSpec
) -> Iterator[Problem]:
    latent_shape, longest = autoencoder.latent_shape(*size), model.rope_max_seq_len
    axes = zip(("num_frames", "height", "width"), latent_shape, model.patch_size, strict=True)
    for name, cells, patch in axes:
        if cells // patch > longest:
            yield Problem(
                name, f"makes {cells // patch} tokens along this axis, model.rope_max_seq_len is {longest}"
            )


def dataset_problems(data: DataSpec) -> Iterator[Problem]:
    """What rendered clips can't give."""
    dataset = data.dataset
    if not isinstance(dataset, ShapesSpec):
        return
    if data.num_frames > dataset.num_frames:
        yield Problem(
            "num_frames",
            f"{data.num_frames} frames are asked for, but dataset.num_frames renders {dataset.num_frames}",
        )
    if data.fps != dataset.fps:
        yield Problem("fps", f"is {data.fps}, but dataset.fps renders {dataset.fps}; make them equal")

"""Rules on which part of a clip is read, and on what is kept of it or was computed before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from mm_config.durable.reading import outside
from mm_config.rules.wording import idle_problems, one_of, repeated_problems
from mm_config.schema.errors import Problem
from mm_config.specs.data import (
    Cache,
    CaptionSpec,
    ClipStart,
    DataSpec,
    Order,
    PrecomputedSpec,
    Resize,
    Tails,
)
from mm_config.specs.datasets import COLOURS, FURTHER_COLOURS, ManifestSpec, MixtureSpec, ShapesSpec
from mm_config.specs.weights import ReleasedWeights, SavedWeights


def data_problems(data: DataSpec) -> Iterator[Problem]:
    """Rules between the data's own fields."""
    yield from _rate_problems(data)
    yield from _short_clip_problems(data)
    yield from _batch_problems(data)
    if data.resize is not Resize.AREA:
        yield from idle_problems(data, ["size_multiple"], "resize = area")
    if data.buckets and data.resize is Resize.AREA:
        yield Problem(
            "resize", "is area, which gives each clip a size of its own, but buckets fix the sizes; drop one"
        )
    if isinstance(data.dataset, ShapesSpec):
        yield from _shapes_problems(data, data.dataset)
    if data.precomputed is not None:
        yield from _caption_problems(data, data.precomputed)


def caption_text_problems(captions: CaptionSpec) -> Iterator[Problem]:
    """A template has one place for the caption, and none for anything else."""
    for index, template in enumerate(captions.templates):
        if template.count("{caption}") != 1:
            yield Problem(f"templates.{index}", f"must have {{caption}} once, got {template[:80]!r}")


def colour_problems(dataset: ShapesSpec) -> Iterator[Problem]:
    """Colours are known, and each has its clips once."""
    yield from repeated_problems("colours", dataset.colours)
    for index, colour in enumerate(dataset.colours):
        if colour not in (known := (*COLOURS, *FURTHER_COLOURS)):
            yield Problem(f"colours.{index}", one_of(colour, known))


def precomputed_problems(precomputed: PrecomputedSpec) -> Iterator[Problem]:
    """Features hold something."""
    if not (precomputed.latents or precomputed.text):
        yield Problem("latents", "is False, and so is text: the features hold nothing; set one of them")
    if precomputed.empty_caption and not precomputed.text:
        yield Problem("empty_caption", "is True, but text is False: captions are encoded; set it to False")


def digest_problems(
    named: ManifestSpec | PrecomputedSpec | ReleasedWeights | SavedWeights,
) -> Iterator[Problem]:
    """A digest is one."""
    if named.digest is not None and not re.fullmatch("[0-9a-f]{64}", named.digest):
        yield Problem("digest", f"must be 64 hex digits in lower case, got {named.digest[:80]!r}")


def subfolder_problems(weights: ReleasedWeights) -> Iterator[Problem]:
    """A subfolder is one; links are the business of whoever made the release's folder, such as a cache."""
    if weights.subfolder and (problem := outside(weights.subfolder, Path(), follow=False)):
        yield Problem("subfolder", f"{problem}; it stays inside the release, got {weights.subfolder!r}")


def kept_latents_problems(data: DataSpec) -> Iterator[Problem]:
    """Latents that are cached or were computed before come in as many variants as the data says."""
    computed_before = data.precomputed is not None and data.precomputed.latents
    if computed_before and data.cache is Cache.LATENTS:
        message = "is latents, but precomputed latents are fixed: there is nothing to keep; set it to none"
        yield Problem("data.cache", message)
    if not computed_before and data.cache is not Cache.LATENTS:
        if data.variants > 1 and data.precomputed is None:
            message = f"is {data.variants}, but nothing is kept: each draw is new; set it to 1 or data.cache"
            yield Problem("data.variants", message)
        return
    if data.variants > 1:
        return
    kept = "data.cache = latents keeps one encoding per clip"
    instead = ", set data.variants to how many are kept of each clip, or set the cache to none"
    if computed_before:
        kept, instead = (
            "precomputed latents are fixed",
            ", or set data.variants to how many there are of each",
        )
    # A mirrored clip is kept as well as any other, as long as it is always mirrored.
    if 0 < data.flip_share < 1:
        yield Problem("data.flip_share", f"is {data.flip_share}, but {kept}; set it to 0.0{instead}")
    if data.start is ClipStart.RANDOM:
        yield Problem("data.start", f"is random, but {kept}; choose head or middle{instead}")
    if data.resize is Resize.RANDOM_CROP:
        yield Problem("data.resize", f"is random_crop, but {kept}; choose center_crop{instead}")


def _rate_problems(data: DataSpec) -> Iterator[Problem]:
    if data.frame_interval is None:
        return
    if data.speed_factor != 1:
        yield Problem(
            "speed_factor",
            f"is {data.speed_factor}, but frame_interval takes every n-th frame; leave it at 1.0 or set "
            "frame_interval to None",
        )
    default = attrs.fields_dict(DataSpec)["fps"].default
    if data.fps != default:
        yield Problem(
            "fps",
            f"is {data.fps}, but frame_interval reads clips whatever their rate; leave it at {default} or "
            "set frame_interval to None",
        )


def _short_clip_problems(data: DataSpec) -> Iterator[Problem]:
    least = data.min_num_frames
    if least is None:
        yield from idle_problems(data, ["drop_short_share"], "min_num_frames")
        return
    if data.buckets:
        yield Problem(
            "min_num_frames", f"is {least}, but buckets say which numbers of frames there are; set it to None"
        )
    elif least > data.num_frames:
        yield Problem("min_num_frames", f"is {least}, above num_frames {data.num_frames}")
    elif data.drop_short_share == 1:
        yield Problem(
            "drop_short_share",
            "is 1.0, which leaves out all the short clips that min_num_frames lets in; set it below 1",
        )


def _batch_problems(data: DataSpec) -> Iterator[Problem]:
    """How clips are put together."""
    if data.shuffle_block is not None and data.order is Order.SEQUENTIAL:
        yield Problem(
            "shuffle_block",
            f"is {data.shuffle_block}, but order = sequential shuffles nothing; set it to None",
        )
    if not data.buckets and data.min_num_frames is None and data.resize is not Resize.AREA:
        yield from idle_problems(data, ["tokens_per_batch"], "clips of several sizes")
    elif data.tokens_per_batch is not None:
        for index, bucket in enumerate(data.buckets):
            if bucket.batch_size is not None:
                yield Problem(
                    f"buckets.{index}.batch_size",
                    f"is {bucket.batch_size}, but tokens_per_batch says how many clips fit; set it to None",
                )
    if not isinstance(data.dataset, MixtureSpec):
        return
    if data.tails is not Tails.CARRY:
        yield Problem(
            "tails",
            f"is {data.tails.value}, but the parts of a mixture have epochs of their own, which end "
            "inside of batches; leave it at carry",
        )
    for index, part in enumerate(data.dataset.parts):
        if isinstance(part.dataset, MixtureSpec):
            yield Problem(f"dataset.parts.{index}.dataset", "is a mixture itself; list its parts here")


def _shapes_problems(data: DataSpec, dataset: ShapesSpec) -> Iterator[Problem]:
    """What rendered clips can't give."""
    interval = data.frame_interval or 1
    least = {f"buckets.{index}.num_frames": bucket.num_frames for index, bucket in enumerate(data.buckets)}
    if data.min_num_frames is not None:
        least = {"min_num_frames": data.min_num_frames}
    for name, frames in (least or {"num_frames": data.num_frames}).items():
        needed = (frames - 1) * interval + 1
        if needed > dataset.num_frames:
            yield Problem(
                name, f"{needed} frames are asked for, but dataset.num_frames renders {dataset.num_frames}"
            )
    if data.min_pixels is not None and data.min_pixels > dataset.size**2:
        yield Problem(
            "min_pixels",
            f"is {data.min_pixels}, but dataset.size renders {dataset.size**2} pixels: no clip is left",
        )
    if data.frame_interval is None and data.fps != dataset.fps:
        yield Problem("fps", f"is {data.fps}, but dataset.fps renders {dataset.fps}; make them equal")


def _caption_problems(data: DataSpec, precomputed: PrecomputedSpec) -> Iterator[Problem]:
    if precomputed.text and data.caption_dropout > 0 and not precomputed.empty_caption:
        yield Problem(
            "caption_dropout",
            f"is {data.caption_dropout}, but precomputed.empty_caption is False: without the features of the "
            "empty caption no caption can be dropped; set it to 0.0 or compute them",
        )

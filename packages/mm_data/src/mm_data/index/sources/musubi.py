"""musubi-tuner's dataset TOML: folders and JSON lines of videos and pictures, and how they are to be cut.

Its keys are those of `docs/dataset_config.md` of https://github.com/kohya-ss/musubi-tuner.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from mm_config.schema import Problem, UserError, did_you_mean
from mm_config.specs import Pieces
from mm_data.index.listed import LeftOut, Listed
from mm_data.index.pieces import Cutting
from mm_data.index.sources.files import Files
from mm_data.index.sources.folders import CAPTION, PICTURES, VIDEOS, beside
from mm_data.index.sources.rows import listed_rows, shown
from mm_data.index.sources.tables import rows_of

WHERE = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")
"""Where the clips of a dataset are: one of these."""
TAKEN = (
    *("resolution", "caption_extension", "num_repeats", "enable_bucket", "target_frames", "max_frames"),
    *("frame_extraction", "frame_stride", "source_fps", "batch_size", "bucket_no_upscale", "frame_sample"),
)
"""Keys that are carried out or said as lines of a spec, or refused where they can't be."""
LEFT = {
    "cache_directory": "features are cached by content, below the cache folder",
    "control_directory": "its control clips are no part of these specs",
    "multiple_target": "several targets of one caption are no part of these specs",
}
"""Keys that are not taken over, and why."""
DEFAULT_RESOLUTION = [960, 544]
MULTIPLE = 16
"""Sizes of its buckets are multiples of this."""


@attrs.frozen
class Set:
    """One dataset of the file."""

    where: str
    """`[[datasets]]` and its number, for messages."""
    place: str
    """Which of `WHERE`."""
    path: str
    """What that key says."""
    values: Mapping[str, Any]
    """All other keys, those of `[general]` too."""

    @property
    def pictures(self) -> bool:
        """Whether it holds pictures."""
        return self.place.startswith("image")


@attrs.frozen
class Asked:
    """What the file asks for."""

    sets: tuple[Set, ...]
    """Its datasets."""
    cutting: Cutting | None
    """How clips are to be cut, the same for all."""
    spec_lines: tuple[str, ...]
    """Fields of `DataSpec` that do what the file says, as lines to paste."""
    notes: tuple[str, ...]
    """What is not taken over, and what is to be known."""


def read_toml(text: str, where: str) -> Asked:
    """What a dataset TOML asks for.

    Raises:
        UserError: It is no such file, or asks for what can't be done: all of it.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(Problem(where, f"not TOML that can be read: {error}")) from error
    general, datasets = content.get("general", {}), content.get("datasets")
    tables = isinstance(datasets, list) and all(isinstance(one, dict) for one in datasets)
    if not (isinstance(general, dict) and tables and datasets):
        raise UserError(Problem(where, "expected [[datasets]], as musubi-tuner has them"))
    problems: list[Problem] = []
    notes: dict[str, None] = {}
    sets = [
        one
        for number, values in enumerate(datasets, 1)
        if (one := _set(f"{where}: [[datasets]] {number}", {**general, **values}, problems, notes))
    ]
    cuttings = [_cutting(one, problems) for one in sets if not one.pictures]
    if len(set(cuttings)) > 1:
        problems.append(Problem(where, "its datasets are cut in different ways; index them one by one"))
    lines = _lines(sets, problems, notes) if sets else []
    if problems:
        raise UserError(problems)
    return Asked(tuple(sets), cuttings[0] if cuttings else None, tuple(lines), tuple(notes))


def _set(
    where: str, values: Mapping[str, Any], problems: list[Problem], notes: dict[str, None]
) -> Set | None:
    for key in values:
        if key in LEFT or key.startswith(("flux_", "qwen_", "fp_", "control_")):
            notes[f"{key} is not taken over: {LEFT.get(key, 'it is for other networks')}"] = None
        elif key not in (*WHERE, *TAKEN):
            problems.append(Problem(where, f"no key {key!r} is known{did_you_mean(key, (*WHERE, *TAKEN))}"))
    there = [key for key in WHERE if key in values]
    if len(there) != 1 or not isinstance(values[there[0]], str):
        problems.append(
            Problem(where, f"expected a path as one of {', '.join(WHERE)}, got {', '.join(there) or 'none'}")
        )
        return None
    repeats, extension = values.get("num_repeats", 1), values.get("caption_extension", CAPTION)
    if not (type(repeats) is int and repeats >= 1):
        problems.append(Problem(where, f"num_repeats must be a whole number above 0, got {shown(repeats)}"))
    if not (isinstance(extension, str) and extension):
        problems.append(Problem(where, f"caption_extension must be a text, got {shown(extension)}"))
    if repeats != 1:
        notes[f"num_repeats: every clip of {values[there[0]]} is listed {shown(repeats)} times"] = None
    return Set(where, there[0], values[there[0]], values)


def _cutting(one: Set, problems: list[Problem]) -> Cutting:
    """`frame_extraction` as pieces: `head` and `full` are one sample of a clip."""
    how, frames = one.values.get("frame_extraction", "head"), _frames(one, problems)
    if how in ("head", "full"):
        return Cutting()
    if how in ("chunk", "slide") and len(frames) == 1:
        stride = one.values.get("frame_stride", 10)
        windows = how == "slide"
        return Cutting(Pieces.WINDOWS if windows else Pieces.CHUNKS, frames[0], stride if windows else None)
    if how == "uniform" and len(frames) == 1:
        return Cutting(Pieces.UNIFORM, frames[0], count=one.values.get("frame_sample", 1))
    if how in ("chunk", "slide", "uniform"):
        message = f"{how!r} with several target_frames makes several sets of pieces; name one of {frames}"
    else:
        message = f"{shown(how)} is not known; head, full, chunk, slide and uniform are"
    problems.append(Problem(one.where, f"frame_extraction: {message}"))
    return Cutting()


def _frames(one: Set, problems: list[Problem]) -> list[int]:
    """`target_frames`, rounded down to 4k+1 as musubi-tuner does."""
    frames = one.values.get("target_frames", [1])
    frames = [frames] if type(frames) is int else frames
    if one.values.get("frame_extraction") == "full":
        frames = [one.values.get("max_frames", 129)]
    if not (isinstance(frames, list) and frames and all(type(n) is int and n >= 1 for n in frames)):
        problems.append(Problem(one.where, f"target_frames must be whole numbers, got {shown(frames)}"))
        return [1]
    return sorted({(n - 1) // 4 * 4 + 1 for n in frames})


def _size(one: Set, problems: list[Problem]) -> tuple[int, int]:
    """Height and width; musubi-tuner says width first, or one number for both."""
    size = one.values.get("resolution", DEFAULT_RESOLUTION)
    size = [size, size] if type(size) is int else size
    if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= 1 for n in size):
        return size[1], size[0]
    problems.append(Problem(one.where, f"resolution must be [width, height], got {shown(size)}"))
    return DEFAULT_RESOLUTION[1], DEFAULT_RESOLUTION[0]


def _lines(sets: Iterable[Set], problems: list[Problem], notes: dict[str, None]) -> list[str]:
    """The fields of `DataSpec` that do what the file says."""
    shapes = sorted(
        {
            (frames, *_size(one, problems))
            for one in sets
            for frames in ([1] if one.pictures else _frames(one, problems))
        }
    )
    values = [one.values for one in sets]
    frames, height, width = shapes[-1]
    lines = [f"num_frames={frames},", f"height={height},", f"width={width},"]
    if len(shapes) > 1:
        each = ", ".join(f"BucketSpec(num_frames={f}, height={h}, width={w})" for f, h, w in shapes)
        lines.append(f"buckets=({each}),")
    rates = {one.values.get("source_fps") for one in sets if not one.pictures}
    if rates - {None}:
        lines.append("fps=16.0,")
        notes["source_fps: clips are sampled by their own timestamps at fps, which is 16 for Wan"] = None
    elif rates:
        lines.append("frame_interval=1,")
    if any(one.get("enable_bucket") for one in values):
        lines += ["resize=Resize.AREA,", f"size_multiple={MULTIPLE},"]
    else:
        lines.append("resize=Resize.CENTER_CROP,")
    if any(one.get("frame_extraction") == "full" for one in values):
        lines.append("min_num_frames=1,")
    if any(one.get("bucket_no_upscale") for one in values):
        notes["bucket_no_upscale is not taken over: min_pixels leaves out clips that are too small"] = None
    sizes = {one["batch_size"] for one in values if type(one.get("batch_size")) is int}
    if sizes:
        lines.append(f"batch_size={max(sizes)},")
        notes["batch_size is that of one process there, and of all ranks together here"] = None
    return lines


def listed_sets(
    asked: Asked, files: Files, path: str | None, caption: str | None
) -> Iterator[Listed | LeftOut]:
    """The clips of all datasets, in the file's order, each as often as its dataset is repeated.

    Raises:
        UserError: A folder is not allowed or can't be read, or captions or lines are wrong.
    """
    for one in asked.sets:
        try:
            if one.place.endswith("_directory"):
                kinds = PICTURES if one.pictures else VIDEOS
                extension = one.values.get("caption_extension", CAPTION)
                clips = list(beside(files.below(one.path), extension, kinds))
            else:
                clips = list(listed_rows(rows_of(files, one.path), files, one.path, path, caption))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(Problem(f"{one.where}.{one.place}", f"{error}: {one.path!r}")) from error
        yield from clips
        for _ in range(one.values.get("num_repeats", 1) - 1):
            yield from (clip for clip in clips if isinstance(clip, Listed))

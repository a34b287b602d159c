"""The shape that a clip gets, or why it is left out: for whole columns of an index at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from mm_config.schema import Problem, UserError
from mm_config.specs import BucketSpec, DataSpec, Resize
from mm_data.records import Shape
from mm_data.transforms.framing import size_of
from mm_data.transforms.grid import Grid
from mm_data.transforms.sampling import frames_after_sampling

Columns = Mapping[str, NDArray[Any]]
"""`[N]` each: `frames`, `fps_num`, `fps_den`, `height` and `width` of clips as they are shown."""

MOST_OUTCOMES = 2**16
_TABLE = 2**24
"""Values up to which a table of all of them is faster than sorting."""
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@attrs.frozen
class HeldOut:
    """What becomes of a clip that is kept for validation."""

    shape: Shape
    """That of its batch."""


class Outcomes:
    """Numbers the shapes and the reasons that clips of one dataset get."""

    def __init__(self, data: DataSpec, grid: Grid, key: str, bad: Mapping[int, str] | None = None) -> None:
        """Args:
        data: Sizes and filters.
        grid: The sizes that the network takes.
        key: What it follows from which short clips are left out.
        bad: Clips that are left out in any case, and why, by their places.
        """
        self.listed: list[Shape | HeldOut | str] = []
        """By number."""
        self._data, self._grid, self._key, self._bad = data, grid, key, bad or {}
        self._frames = sorted({one.num_frames for one in data.buckets if one.num_frames > 1}) or [1]
        self._number = cache(self._numbered)
        self._filled = cache(self._with_filled)
        self._numbers: dict[Shape | HeldOut | str, int] = {}

    def of(self, columns: Columns, first: int) -> NDArray[np.uint16]:
        """The number of each clip's outcome.

        Args:
            columns: Of some clips that follow each other.
            first: The place of the first in its dataset.
        """
        data = self._data
        fps = columns["fps_num"] / columns["fps_den"]
        frames = frames_after_sampling(data, columns["frames"], fps, self._grid)
        kinds = frames
        if data.buckets:
            kinds = np.searchsorted(self._frames, frames, side="right")
            kinds[fps == 0] = len(self._frames) + 1
        distinct, kind_of = _ranks(kinds)
        sizes, size_of_row = [(0, 0)], np.zeros(1, np.int64)
        if _needs_size(data):
            sizes, size_of_row = _pairs(columns["height"], columns["width"])
        table = np.array([[self._number(int(k), *size) for k in distinct] for size in sizes], np.uint16)
        numbers = table[size_of_row, kind_of]
        if data.min_num_frames is not None and data.drop_short_share > 0:
            kept = np.array([isinstance(one, Shape) for one in self.listed])[numbers]
            short = kept & (frames < data.num_frames)
            places = np.arange(first, first + len(frames), dtype=np.uint64)
            drawn = uniform(places, self._key, b"mm_data.short")
            message = (
                f"shorter than data.num_frames, of which a share of {data.drop_short_share:g} is left out"
            )
            numbers[short & (drawn < data.drop_short_share)] = self._numbered_as(message)
        for place, reason in self._bad.items():
            if 0 <= place - first < len(numbers):
                numbers[place - first] = self._numbered_as(reason)
        return numbers

    def hold_out(self, numbers: NDArray[np.uint16], held: NDArray[np.bool_]) -> None:
        """Sets those clips apart that are held out of training and have a shape.

        Args:
            numbers: What `of` returned, which is written to.
            held: Which of them.
        """
        for number in np.unique(numbers[held]).tolist():
            if isinstance(shape := self.listed[number], Shape):
                numbers[held & (numbers == number)] = self._numbered_as(HeldOut(shape))

    def _numbered(self, kind: int, height: int, width: int) -> int:
        outcome = (
            self._in_bucket(kind, height, width) if self._data.buckets else self._as_is(kind, height, width)
        )
        return self._numbered_as(outcome)

    def _numbered_as(self, outcome: Shape | HeldOut | str) -> int:
        if outcome not in self._numbers:
            self._numbers[outcome] = len(self.listed)
            self.listed.append(outcome)
        if len(self.listed) > MOST_OUTCOMES:
            message = f"makes more than {MOST_OUTCOMES:,} sizes of clips; a larger one makes fewer"
            raise UserError(Problem("spec.data.size_multiple", message))
        return self._numbers[outcome]

    def _as_is(self, frames: int, height: int, width: int) -> Shape | str:
        if frames == 0:
            return (
                f"shorter than {self._data.min_num_frames or self._data.num_frames} frames{_rate(self._data)}"
            )
        if not _needs_size(self._data):
            return Shape(frames, self._data.height, self._data.width)
        size = size_of(self._data, height, width, self._grid)
        return size if isinstance(size, str) else Shape(frames, *size)

    def _in_bucket(self, kind: int, height: int, width: int) -> Shape | str:
        """Of the buckets whose frames a clip fills, the nearest size; of those with it, the most frames."""
        filled = self._filled(kind)
        if filled is None:
            few = f"shorter than every bucket: {self._frames[0]} frames{_rate(self._data)}"
            return few if kind <= len(self._frames) else "an image, and no bucket has one frame"
        size = size_of(filled, height, width, self._grid)
        return size if isinstance(size, str) else Shape(_most_frames(filled.buckets, size), *size)

    def _with_filled(self, kind: int) -> DataSpec | None:
        """The data with the buckets alone whose frames clips of a kind fill."""
        frames = {1} if kind > len(self._frames) else set(self._frames[:kind])
        filled = tuple(bucket for bucket in self._data.buckets if bucket.num_frames in frames)
        return attrs.evolve(self._data, buckets=filled) if filled else None


def needs_measuring(data: DataSpec) -> bool:
    """Whether a plan has to know the lengths and sizes of clips."""
    return bool(data.buckets) or data.min_num_frames is not None or _needs_size(data)


def _needs_size(data: DataSpec) -> bool:
    filters = data.max_aspect_ratio is not None or data.min_pixels is not None
    return bool(data.buckets) or data.resize is Resize.AREA or filters


def _most_frames(buckets: Sequence[BucketSpec], size: tuple[int, int]) -> int:
    return max(one.num_frames for one in buckets if (one.height, one.width) == size)


def _rate(data: DataSpec) -> str:
    return (
        f" at {data.fps:g} frames/s" if data.frame_interval is None else f", each {data.frame_interval} apart"
    )


def _pairs(height: NDArray[Any], width: NDArray[Any]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """The distinct sizes, and which of them each clip has."""
    heights, row_of = _ranks(height)
    widths, column_of = _ranks(width)
    pairs, pair_of = _ranks(row_of * len(widths) + column_of)
    rows, columns = np.divmod(pairs, len(widths))
    return list(zip(heights[rows].tolist(), widths[columns].tolist(), strict=True)), pair_of


def _ranks(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct values, rising, and the rank of each value among them."""
    if values.max() >= _TABLE:
        return np.unique(values, return_inverse=True)
    seen = np.zeros(int(values.max()) + 1, bool)
    seen[values] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[values]


def uniform(values: NDArray[np.uint64], key: str, use: bytes) -> NDArray[Any]:
    """A number from 0 to below 1 for each value, by key and use: the finaliser of SplitMix64, twice."""
    seed = blake2b(key.encode(), digest_size=8, person=use).digest()
    value = _mixed(_mixed(values) ^ np.uint64(int.from_bytes(seed, "little")))
    return (value >> np.uint64(11)) * 2.0**-53


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX[0]
    value = (value ^ (value >> np.uint64(27))) * _MIX[1]
    return value ^ (value >> np.uint64(31))

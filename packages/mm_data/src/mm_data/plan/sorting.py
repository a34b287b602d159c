"""Which clips of a dataset get which shape, and which are left out: sorted once, and kept beside an index."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import attrs
import numpy as np
from numpy.typing import NDArray

from mm_config.console import say
from mm_config.durable import read_bytes, staged_folder
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.index.table import IndexedRecords
from mm_data.plan.holding_out import held_out
from mm_data.plan.measuring import known_of
from mm_data.plan.sizing import Columns, HeldOut, Outcomes, needs_measuring
from mm_data.records import Dataset, Shape
from mm_data.transforms.grid import Grid

REVISION = 1
"""Raised where the same clips are sorted in another way."""
KEPT_FROM = 1_000_000
"""Clips from which on what is found is kept; fewer are sorted faster than a file is written."""
CHUNK = 2**20
"""Clips that are looked at together."""
SHOWN = 3
"""Clips that are named of those left out for one reason."""
_FIELDS = (
    *("num_frames", "height", "width", "fps", "frame_interval", "min_num_frames", "drop_short_share"),
    *("resize", "size_multiple", "max_aspect_ratio", "min_pixels"),
)
HELD = "held out for validation"


LeftOut = tuple[str, int, Sequence[int]]
"""Reason, count and the first places."""
HoldOut = Callable[[], NDArray[np.bool_]]
"""`[rows]`: which clips are held out."""


@attrs.frozen(eq=False)
class Sorted:
    """The clips of a dataset by the shape that they get."""

    rows: int
    """Clips before any was left out."""
    members: Mapping[Shape, Sequence[int]]
    """Places in the dataset, rising; no shape without clips."""
    left_out: Sequence[LeftOut]
    """The most frequent reason first; to be held out is one."""
    held: Mapping[Shape, Sequence[int]] = attrs.field(factory=dict[Shape, Sequence[int]])
    """Places of clips that are held out of training, as `members` has those that are not."""


def sort_clips(
    data: DataSpec, dataset: Dataset, seed: int, grid: Grid, store: Path | None, holdout: float = 0.0
) -> Sorted:
    """Sorts a dataset's clips.

    Clips that nobody has measured are all taken as they are where neither buckets nor filters ask for their
    sizes; one that then is too short is a bad clip.

    Args:
        data: Sizes and filters.
        dataset: The clips.
        seed: The run's, from which follows which short clips are left out and which are held out.
        grid: The sizes that the network takes.
        store: Folder that keeps what is found; None keeps it beside an index.
        holdout: Share of the files that is held out of training.

    Raises:
        UserError: More clips can't be measured than the spec allows, or what is kept is damaged.
    """
    records, rows = dataset.records, len(dataset.records)
    key = f"{dataset.order_key}/{seed}"
    hold_out = partial(held_out, dataset, holdout, seed) if holdout else None
    if not isinstance(records, IndexedRecords) and not needs_measuring(data):
        return _one_size(Shape(data.num_frames, data.height, data.width), rows, hold_out)
    known = known_of(data, dataset, store)
    outcomes = Outcomes(data, grid, key, known.bad)
    if isinstance(records, IndexedRecords) and rows >= KEPT_FROM:
        name = _name(data, grid, key, records.head.digest, f"{holdout}/{seed}" if holdout else "")
        return _kept(outcomes, known.columns, (store or records.folder / "plans") / name, hold_out)
    return _look(outcomes, known.columns, hold_out).in_memory()


def _one_size(shape: Shape, rows: int, hold_out: HoldOut | None) -> Sorted:
    """Clips that are all taken as they are, but for those that are held out."""
    if hold_out is None:
        return Sorted(rows, {shape: range(rows)}, ())
    held = hold_out()
    kinds: list[tuple[int, Shape | HeldOut, int]] = [(0, shape, 0), (1, HeldOut(shape), 0)]
    counts = [(number, kind, int((held == number).sum())) for number, kind, _ in kinds]
    first = np.flatnonzero(held)[:SHOWN].tolist()
    left_out = [(HELD, counts[1][2], first)] if first else []
    return _Looked(held.astype(np.uint16), [one for one in counts if one[2]], left_out).in_memory()


@attrs.frozen(eq=False)
class _Looked:
    """What all clips of a dataset get."""

    numbers: NDArray[np.uint16]
    """`[rows]`, the outcome of each clip."""
    shapes: Sequence[tuple[int, Shape | HeldOut, int]]
    """Those of the outcomes that are shapes with clips: number, shape and clips."""
    left_out: Sequence[LeftOut]
    """Why clips are not trained on."""

    @property
    def listed(self) -> int:
        """Clips whose places have to be listed; 0 where one shape has all."""
        counts = [count for _, _, count in self.shapes]
        return 0 if counts == [len(self.numbers)] else sum(counts)

    def in_memory(self) -> Sorted:
        """Sorts the clips."""
        places = np.empty(self.listed, np.uint32)
        _place(self, places)
        counts = [(shape, count) for _, shape, count in self.shapes]
        return _sorted(counts, places, len(self.numbers), self.left_out)


def _look(outcomes: Outcomes, columns: Columns, hold_out: HoldOut | None = None) -> _Looked:
    rows = len(columns["frames"])
    numbers = np.empty(rows, np.uint16)
    held = None if hold_out is None else hold_out()
    counts: Counter[int] = Counter()
    firsts: dict[int, list[int]] = defaultdict(list)
    for start in range(0, rows, CHUNK):
        chunk = numbers[start : start + CHUNK]
        some = {name: column[start : start + CHUNK] for name, column in columns.items()}
        chunk[:] = outcomes.of(some, start)
        if held is not None:
            outcomes.hold_out(chunk, held[start : start + CHUNK])
        for number, count in enumerate(np.bincount(chunk).tolist()):
            counts[number] += count
            first = firsts[number]
            if count and len(first) < SHOWN and not isinstance(outcomes.listed[number], Shape):
                first += (np.flatnonzero(chunk == number)[: SHOWN - len(first)] + start).tolist()
    found = [(number, one, counts[number]) for number, one in enumerate(outcomes.listed) if counts[number]]
    shapes = [(number, one, count) for number, one, count in found if not isinstance(one, str)]
    left_out = [(one, count, firsts[number]) for number, one, count in found if isinstance(one, str)]
    if apart := [(number, count) for number, one, count in shapes if isinstance(one, HeldOut)]:
        first = sorted(place for number, _ in apart for place in firsts[number])[:SHOWN]
        left_out.append((HELD, sum(count for _, count in apart), first))
    return _Looked(numbers, shapes, sorted(left_out, key=lambda one: -one[1]))


def _place(looked: _Looked, places: NDArray[np.uint32]) -> None:
    """Writes the places of clips, shape after shape."""
    if not looked.listed:
        return
    starts, start = {}, 0
    for number, _, count in looked.shapes:
        starts[number], start = start, start + count
    for first in range(0, len(looked.numbers), CHUNK):
        chunk = looked.numbers[first : first + CHUNK]
        order, ends = np.argsort(chunk, kind="stable"), np.cumsum(np.bincount(chunk))
        for number in starts:
            if number < len(ends):
                rows = order[ends[number - 1] if number else 0 : ends[number]]
                places[starts[number] : starts[number] + len(rows)] = rows + first
                starts[number] += len(rows)


def _sorted(
    counts: Sequence[tuple[Shape | HeldOut, int]],
    places: NDArray[np.uint32],
    rows: int,
    left_out: Sequence[LeftOut],
) -> Sorted:
    """The places of all shapes, which lie one after another, by shape."""
    members: dict[Shape, Sequence[int]] = {}
    held: dict[Shape, Sequence[int]] = {}
    ends = np.cumsum([count for _, count in counts]).tolist()
    for (shape, count), end in zip(counts, ends, strict=True):
        own = range(rows) if count == rows else cast("Sequence[int]", places[end - count : end])
        if isinstance(shape, HeldOut):
            held[shape.shape] = own
        else:
            members[shape] = own
    return Sorted(rows, members, left_out, held)


def _name(data: DataSpec, grid: Grid, key: str, digest: str, held: str = "") -> str:
    """What a sorting follows from, as the name of its folder."""
    fields = {name: str(getattr(data, name)) for name in _FIELDS}
    sizes = [(one.num_frames, one.height, one.width) for one in data.buckets]
    drawn = key if data.drop_short_share < 1 else ""
    content = [REVISION, digest, attrs.asdict(grid), fields, sizes, drawn, *([held] if held else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _kept(outcomes: Outcomes, columns: Columns, folder: Path, hold_out: HoldOut | None = None) -> Sorted:
    """What was found before, mapped into memory, or is found now and kept where that can be written."""
    if not folder.exists():
        say(f"sorting {len(columns['frames']):,} clips into buckets, which is kept in {folder}")
        looked = _look(outcomes, columns, hold_out)
        try:
            with staged_folder(folder) as stage:
                _write(stage, looked)
        except OSError:
            if not folder.exists():  # Another process may have kept the same meanwhile.
                return looked.in_memory()
    return _read(folder, len(columns["frames"]))


def _write(folder: Path, looked: _Looked) -> None:
    if looked.listed:  # No empty file can be mapped.
        file = np.lib.format.open_memmap(folder / "places.npy", "w+", np.uint32, (looked.listed,))
        _place(looked, file)
        file.flush()
    content = {
        "shapes": [
            [*attrs.astuple(one.shape if isinstance(one, HeldOut) else one), count]
            for _, one, count in looked.shapes
        ],
        "left_out": looked.left_out,
    }
    if apart := [place for place, (_, one, _) in enumerate(looked.shapes) if isinstance(one, HeldOut)]:
        content["held"] = apart
    (folder / "sorted.json").write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path, rows: int) -> Sorted:
    """Raises UserError where it is damaged."""
    try:
        content = json.loads(read_bytes(folder / "sorted.json"))
        apart = frozenset(content.get("held", ()))
        counts = [
            (HeldOut(Shape(*size)) if place in apart else Shape(*size), count)
            for place, (*size, count) in enumerate(content["shapes"])
        ]
        left_out = [(reason, count, first) for reason, count, first in content["left_out"]]
        places = np.empty(0, np.uint32)
        if sum(count for _, count in counts) not in (0, rows) or len(counts) > 1:
            places = np.load(folder / "places.npy", mmap_mode="r")
            if len(places) != sum(count for _, count in counts):
                raise ValueError("its files have different lengths")
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"is damaged: {error}; remove the folder to sort the clips again"
        raise UserError(Problem(str(folder), message[:300])) from error
    return _sorted(counts, places, rows, left_out)


def _measured(dataset: Dataset) -> Columns:
    found = [record.measured for record in dataset.records]
    if None in found:
        raise UserError(Problem("spec.data.dataset", "its clips have to be measured; index it"))
    known = [one for one in found if one is not None]
    return {
        "frames": np.array([one.num_frames for one in known]),
        "fps_num": np.array([one.fps.numerator for one in known]),
        "fps_den": np.array([one.fps.denominator for one in known]),
        "height": np.array([one.height for one in known]),
        "width": np.array([one.width for one in known]),
    }

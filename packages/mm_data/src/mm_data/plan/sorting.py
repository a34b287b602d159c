"""Which clip goes into which bucket, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from mm_config.specs import DataSpec
from mm_data.records import Dataset, Shape
from mm_data.transforms.grid import Grid


@attrs.frozen(eq=False)
class Sorted:
    """The clips of a dataset by the shape that they get."""

    rows: int
    """Clips before any was left out."""
    members: Mapping[Shape, Sequence[int]]
    """Places in the dataset, rising; no shape without clips."""
    left_out: Sequence[tuple[str, int, tuple[int, ...]]]
    """Reason, count and the first places, the most frequent reason first."""


def sort_clips(data: DataSpec, dataset: Dataset, seed: int, grid: Grid, store: Path | None) -> Sorted:
    """Sorts a dataset's clips."""
    rows = len(dataset.records)
    return Sorted(rows, {Shape(data.num_frames, data.height, data.width): range(rows)}, ())

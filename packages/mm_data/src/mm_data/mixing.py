"""Several datasets as one, whose clips follow each other."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

from mm_data.records import Dataset, Record


class Chained(Sequence[Record]):
    """The clips of several datasets one after another, each read when it is asked for."""

    def __init__(self, parts: Sequence[Sequence[Record]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        index %= len(self)
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


def mixed(parts: Sequence[Dataset], weights: Sequence[float]) -> Dataset:
    """A mixture's clips.

    Args:
        parts: Its datasets.
        weights: Of each part, from which the order of samples follows, too.
    """
    keys = [[part.order_key, weight] for part, weight in zip(parts, weights, strict=True)]
    return Dataset(
        root=Path(os.path.commonpath([part.root for part in parts])),
        records=Chained([part.records for part in parts]),
        order_key=hashlib.sha256(json.dumps(keys).encode()).hexdigest(),
        parts=tuple(parts),
    )

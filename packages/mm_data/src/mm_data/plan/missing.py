"""Files that are not there, found before a training begins."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain
from pathlib import Path

import attrs
import numpy as np

from mm_config.console import say
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.index.cells import cell
from mm_data.index.table import IndexedRecords
from mm_data.records import Dataset

MOST = 100_000
"""Files of a dataset that are looked for; of more, so many, evenly chosen, which no lost folder escapes. A
look takes 2 us on a local disk and 1 ms on a slow network."""
SHOWN = 3
_THREADS, _CHUNK = 32, 256


@attrs.frozen
class Missing:
    """Clips whose files are not there."""

    looked: int
    """Clips that were looked for."""
    count: int
    """How many of them have no file that can be read."""
    first: tuple[str, ...]
    """The first files."""

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return (
            f"the files of {self.count:,} of {self.looked:,} clips are missing: {', '.join(self.first)}{more}"
        )


def check_files(data: DataSpec, dataset: Dataset) -> None:
    """Looks for the files of all clips, and says which are missing where few enough are.

    Raises:
        UserError: More are missing than `max_bad_share` or `max_bad_clips` allow.
    """
    parts = dataset.parts or (dataset,)
    problems: list[Problem] = []
    for number, found in enumerate(map(missing_files, parts)):
        allowed = allowed_of(data, found.looked)
        where = f"spec.data.dataset.parts.{number}.dataset" if dataset.parts else "spec.data.dataset"
        if found.count > allowed:
            how = "put them back, take them out of the list, or raise data.max_bad_share"
            problems.append(Problem(where, f"{found}; {allowed:,} may be; {how}"))
        elif found.count:
            say(str(Problem(where, str(found))))
    if problems:
        raise UserError(problems)


def allowed_of(data: DataSpec, clips: int) -> int:
    """How many of some clips may be known to be bad before a training begins: a share and a count."""
    allowed = int(Fraction(repr(data.max_bad_share)) * clips)
    return allowed if data.max_bad_clips is None else min(allowed, data.max_bad_clips)


def missing_files(dataset: Dataset) -> Missing:
    """Looks for the files of clips; what lies on a network is not asked for."""
    if isinstance(dataset.records, IndexedRecords):
        return _missing_of_index(dataset.records)
    places = _chosen(len(dataset.records))
    records = [dataset.records[place] for place in places]
    lost = _lost([record.path for record in records])
    first = tuple(dataset.name_of(places[one]) for one in lost[:SHOWN])
    return Missing(len(places), len(lost), first)


def _missing_of_index(records: IndexedRecords) -> Missing:
    """By file: one that holds many clips is looked for once."""
    column = records.places.column("path")
    try:
        paths = {one: str(cell(column, one)) for one in _chosen(len(column))}
    except ValueError as error:
        raise UserError(Problem(str(records.folder), f"its paths are damaged: {error}"[:300])) from error
    places = [one for one, path in paths.items() if "://" not in path]
    lost = _lost([records.root / paths[one] for one in places])
    counts = np.bincount(records.columns("place"), minlength=len(column))
    first = tuple(paths[places[one]] for one in lost[:SHOWN])
    missing = int(counts[[places[one] for one in lost]].sum()) if lost else 0
    return Missing(int(counts[places].sum()) if places else 0, missing, first)


def _chosen(count: int) -> Sequence[int]:
    return range(count) if count <= MOST else np.linspace(0, count - 1, MOST, dtype=int).tolist()


def _lost(paths: Sequence[Path]) -> list[int]:
    """Places of the paths at which no regular file lies."""
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = chain.from_iterable(pool.map(_are_there, chunks))
        return [place for place, there in enumerate(found) if not there]


def _are_there(paths: Sequence[Path]) -> list[bool]:
    return [_is_there(path) for path in paths]


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False

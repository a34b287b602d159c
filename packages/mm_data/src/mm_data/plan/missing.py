"""Files that are not there, found before a training begins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from mm_config.console import say
from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, FolderSpec, MixtureSpec
from mm_data.index.cells import cell
from mm_data.index.table import IndexedRecords, read_stats
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
        clips = f"{self.count:,} of {counted(self.looked, 'clip')}"
        return f"the files of {clips} are missing: {', '.join(self.first)}{more}"


def check_files(data: DataSpec, dataset: Dataset) -> None:
    """Looks for the files of all clips, and says which are missing where few enough are.

    Raises:
        UserError: More are missing than `max_bad_share` or `max_bad_clips` allow, or were missing or damaged
            when the training itself indexed them.
    """
    parts = dataset.parts or (dataset,)
    problems: list[Problem] = []
    for number, part in enumerate(parts):
        where = f"spec.data.dataset.parts.{number}.dataset" if dataset.parts else "spec.data.dataset"
        named = data.dataset.parts[number].dataset if isinstance(data.dataset, MixtureSpec) else data.dataset
        if isinstance(named, FolderSpec) and isinstance(part.records, IndexedRecords):
            bad = _bad_of_folder(data, read_stats(part.records.folder))
            problems += [Problem(where, told) for told in bad]
        found = missing_files(part)
        allowed = allowed_of(data, found.looked)
        if found.count > allowed:
            how = "put them back, take them out of the list, or raise data.max_bad_share"
            problems.append(Problem(where, f"{found}; {allowed:,} may be; {how}"))
        elif found.count:
            say(str(Problem(where, str(found))))
    if problems:
        raise UserError(problems)


def _bad_of_folder(data: DataSpec, stats: Mapping[str, Any]) -> Iterator[str]:
    """That more files are missing or damaged than may be, where nobody but the training looked at them."""
    bad = stats["left_out"]["bad_files"]
    looked = stats["files"]["count"] + bad
    if bad > (allowed := allowed_of(data, looked)):
        first = stats["left_out"]["first_bad"]
        more = f" and {bad - len(first):,} more" if bad > len(first) else ""
        how = "mend them, take them out of the data, or raise data.max_bad_share"
        which = f"{bad:,} of {counted(looked, 'file')} can't be used: {', '.join(first)}{more}"
        yield f"{which}; {allowed:,} may be bad; {how}"


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

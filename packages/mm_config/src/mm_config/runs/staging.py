"""A run folder is made aside and renamed into place: it is there with all that it starts with, or not."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from mm_config.durable.leftovers import stage_of
from mm_config.durable.writing import place_folder


@contextmanager
def staged(first: Path) -> Generator[Path]:
    """A folder to make a run in, which no reader sees; removed where the block fails."""
    stage = stage_of(first)
    stage.mkdir(parents=True)
    try:
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def placed(stage: Path, first: Path, known: Collection[Path]) -> Path:
    """Puts a whole run folder in its place, the first of a number that is free and no known run's."""
    for number in count(1):
        if (path := first.with_name(f"{first.name}-{number}")) in known:
            continue
        try:
            place_folder(stage, path)
        except OSError as error:
            # Two may find the same place free; a folder with files in it is replaced by none.
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                continue
            raise
        return path
    raise AssertionError("count() ended")

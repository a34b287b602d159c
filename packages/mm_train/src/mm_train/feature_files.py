"""Rows of features in files that carry their digest: each is checked when one of its rows is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mm_config.console import aside
from mm_config.durable import require_regular, staged_file
from mm_config.schema import Problem, UserError

ROWS_PER_FILE = 8
"""What is encoded at once, so that a damaged file is made again from few clips, to the last bit."""

OPEN_FILES = 4096
"""Of one kind, mapped into memory by a process; the system allows some 65,000 in all."""


def file_name(kind: str, file: int) -> str:
    """The name of a file of rows, such as `latents-0000012.safetensors`."""
    return f"{kind}-{file:07d}.safetensors"


def rows_of(file: int, count: int) -> range:
    """The rows that a file holds, of so many in all."""
    return range(count)[file * ROWS_PER_FILE : (file + 1) * ROWS_PER_FILE]


def write_rows(path: Path, rows: Tensor) -> None:
    """Writes a file of rows beside its place and renames it.

    Raises:
        UserError: It can't be written.
    """
    with writing(path), staged_file(path) as staged:
        save_file({"rows": rows}, staged, metadata={"sha256": _digest(rows, path)})


def read_rows(path: Path) -> Tensor:
    """The rows of a file, mapped into memory.

    Raises:
        OSError, SafetensorError, ValueError: It is not what was written under that name.
    """
    require_regular(path)
    with safe_open(path, "pt") as file:
        rows, written = file.get_tensor("rows"), file.metadata()
    if written != {"sha256": _digest(rows, path)}:
        raise ValueError("its digest is another")
    return rows


def row_reader(folder: Path, kind: str, make: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """A function that gives the row of a number; nothing is opened before a row is asked for.

    A damaged or missing file is made again in its place. That is said on stderr: each rank reads rows of its
    own, and stdout is the first rank's.

    Args:
        folder: Of the cache.
        kind: What the rows are, as in the names of files.
        make: Makes the rows of a file of that number.
    """

    @lru_cache(OPEN_FILES)
    def read(file: int) -> Tensor:
        path = folder / file_name(kind, file)
        try:
            return read_rows(path)
        except (OSError, SafetensorError, ValueError) as error:
            aside(f"{path} is damaged and made again: {error}")
        write_rows(path, make(file))
        return read_rows(path)

    def row(number: int) -> Tensor:
        file, place = divmod(number, ROWS_PER_FILE)
        return read(file)[place]

    return row


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Raises a UserError where a file or folder of the cache can't be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(Problem(str(path), f"the feature cache can't be written: {reason}")) from error


def _digest(rows: Tensor, path: Path) -> str:
    """Of name, format and values: a file under another's name is damaged as well."""
    digest = hashlib.sha256(f"{path.name} {rows.dtype} {tuple(rows.shape)}".encode())
    digest.update(rows.flatten().numpy().data)
    return digest.hexdigest()

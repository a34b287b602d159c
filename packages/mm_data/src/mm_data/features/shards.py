"""Shards of features: safetensors files whose rows, of any names and shapes, carry their digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mm_config.durable import require_regular, staged_file
from mm_config.schema import Problem, UserError

Row = Mapping[str, Tensor]
"""The tensors of a feature by name."""

SUFFIX = ".safetensors"
_OPEN = 64
"""Shards that stay open at most, each mapped once."""
_ROWS = "rows"
_DIGEST = re.compile("[0-9a-f]{64}")


class Damaged(ValueError):
    """A shard or a row is not what was written."""


def shard_name(keys: Iterable[str]) -> str:
    """The name of the shard of some rows, which no other rows have."""
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:32] + SUFFIX


def write_shard(folder: Path, rows: Mapping[str, Row]) -> str:
    """Writes rows by key into a shard, whole or not at all, and returns its name.

    Raises:
        UserError: It can't be written.
    """
    name = shard_name(rows)
    tensors = {f"{key}.{part}": value for key, row in rows.items() for part, value in row.items()}
    digests = json.dumps({key: row_digest(key, row) for key, row in sorted(rows.items())})
    with writing(folder), staged_file(folder / name) as staged:
        save_file(tensors, staged, metadata={_ROWS: digests})
    return name


def row_digests(path: Path) -> dict[str, str]:
    """The digests of a shard's rows by key, as its head has them.

    Raises:
        Damaged: There is no shard, or its head is damaged.
    """
    with _opened(path) as file:
        return _listed(file)


def read_row(path: Path, key: str, digest: str) -> dict[str, Tensor]:
    """A row of a shard, mapped into memory.

    Raises:
        Damaged: It is not the one with that digest.
    """
    try:
        file, parts = _kept_open(path, _identity(path))
        row = {part: file.get_tensor(f"{key}.{part}") for part in parts.get(key, ())}
    except (OSError, SafetensorError) as error:
        raise Damaged(str(error)) from error
    if row_digest(key, row) != digest:
        raise Damaged("its digest is another")
    return row


def row_digest(key: str, row: Row) -> str:
    """Of key, names, formats, shapes and values: a row under another's key is damaged as well."""
    digest = hashlib.sha256(key.encode())
    for name, value in sorted(row.items()):
        digest.update(f"|{name} {value.dtype} {tuple(value.shape)}|".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Raises a UserError where features can't be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(Problem(str(folder), f"features can't be written: {reason}")) from error


def _identity(path: Path) -> tuple[int, ...]:
    """What changes where another file takes a path, or the file itself does."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=_OPEN)
def _kept_open(path: Path, identity: tuple[int, ...]) -> tuple[Any, dict[str, list[str]]]:
    """A shard, and the parts of each of its rows: a head is as long as a shard has rows."""
    require_regular(path)
    file = safe_open(path, "pt")
    parts: dict[str, list[str]] = {}
    for name in file.keys():  # noqa: SIM118
        key, _, part = name.partition(".")
        parts.setdefault(key, []).append(part)
    return file, parts


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    try:
        require_regular(path)
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise Damaged(str(error)) from error


def _listed(file: Any) -> dict[str, str]:
    try:
        listed = json.loads(file.metadata()[_ROWS])
        if not all(_DIGEST.fullmatch(text) for pair in listed.items() for text in pair):
            raise ValueError("a key or a digest is none")
        return dict(listed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("its head lists no rows") from error

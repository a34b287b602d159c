"""Safetensors: whole files, or the shards of a distributed checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mm_config.durable import require_regular
from mm_config.schema import Problem, UserError
from mm_models.blocks import Blocks, CheckedFile
from mm_models.dtypes import DTYPES
from mm_models.shards import raw_bytes
from mm_models.weights.placeholders import placeholder
from mm_models.weights.tensors import Piece, Region, StoredTensor

_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What comes of a header that is JSON of another shape."""
BUFFER_BYTES = 2**24
"""What values pass through that are cast, moved to a device, or no whole rows; a single row may be larger."""


def read_files(files: Iterable[Path], blocks: Mapping[Path, Blocks] | None = None) -> dict[str, StoredTensor]:
    """The tensors of some files; what one holds must not be in another, except as another shard.

    Args:
        files: In any order.
        blocks: Of those whose content is checked as it is read: what their blocks must be.

    Raises:
        UserError: Files can't be read, all of them named, or two hold the same values.
    """
    pieces: dict[str, list[tuple[Path, torch.dtype, Piece]]] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            for name, dtype, piece in _pieces(CheckedFile(file, (blocks or {}).get(file))):
                pieces.setdefault(name, []).append((file, dtype, piece))
        except UserError as error:
            problems += error.problems
        except (SafetensorError, OSError, *_MALFORMED) as error:
            problems.append(Problem(str(file), f"can't be read: {_why(file, error)}"))
    if problems:
        raise UserError(problems)
    return {name: _joined(name, found) for name, found in pieces.items()}


def _why(file: Path, error: Exception) -> str:
    if not isinstance(error, SafetensorError):
        return str(error)
    if stands := placeholder(file):
        return f"it is {stands}"
    return f"{error}; it was cut short or is no safetensors file"


def _pieces(source: CheckedFile) -> Iterable[tuple[str, torch.dtype, Piece]]:
    file, size = source.path, bytearray(8)
    require_regular(file)
    source.check_start()
    with safe_open(file, framework="pt") as opened:  # It checks the whole header against the file's size.
        sharding = json.loads((opened.metadata() or {}).get("DCP_SHARDING_INFO") or "{}")
    source.read(0, memoryview(size), "the header")
    content = bytearray(int.from_bytes(size, "little"))
    source.read(8, memoryview(content), "the header")
    source.settle()
    header = json.loads(content)
    header.pop("__metadata__", None)
    for name, entry in header.items():
        sizes, dtype = tuple(entry["shape"]), entry["dtype"]
        if dtype not in DTYPES:
            raise ValueError(f"{name} is of the unknown dtype {dtype}")
        offsets = tuple(sharding[name]["saved_offsets"]) if name in sharding else (0,) * len(sizes)
        if len(offsets) != len(sizes) or any(type(start) is not int or start < 0 for start in offsets):
            raise ValueError(f"{name} is {sizes}, which can't begin at {offsets} of a whole tensor")
        begin = 8 + len(content) + entry["data_offsets"][0]
        copy = partial(_copy, source, name, begin, sizes, DTYPES[dtype])
        yield name, DTYPES[dtype], Piece(offsets, sizes, copy, (str(file), begin), source.settle)


def _copy(
    source: CheckedFile,
    name: str,
    begin: int,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    region: Region,
    out: Tensor,
) -> None:
    """Whole rows of the stored dtype are read straight into place; all else passes through a buffer.

    Files are read and not mapped: mapped pages would count as a rank's memory beside its shard.
    """
    sizes, region, out = sizes or (1,), region or (slice(0, 1),), out if out.ndim else out[None]
    if not out.numel():
        return
    row_bytes = math.prod(sizes[1:]) * dtype.itemsize
    begin += region[0].start * row_bytes
    if out.shape[1:] == sizes[1:] and out.dtype == dtype and out.is_cpu and out.is_contiguous():
        source.read(begin, raw_bytes(out), name)
        return
    count = min(len(out), max(1, BUFFER_BYTES // row_bytes))
    buffer = torch.empty((count, *sizes[1:]), dtype=dtype)
    for rows in out.split(count):
        values = buffer[: len(rows)]
        source.read(begin, raw_bytes(values), name)
        begin += len(rows) * row_bytes
        rows.copy_(values[(slice(None), *region[1:])])


def _joined(name: str, found: list[tuple[Path, torch.dtype, Piece]]) -> StoredTensor:
    # Ranks beyond a short axis hold empty shards, all at its end.
    found = [row for row in found if 0 not in row[2].sizes] or found[:1]
    places = {piece.offsets: file for file, _, piece in found}
    if len(places) < len(found):
        twice = next(file for file, _, piece in found if places[piece.offsets] != file)
        raise UserError(Problem(str(twice), f"{name} is in {next(iter(places.values())).name} too"))
    if len({dtype for _, dtype, _ in found}) > 1:
        raise UserError(Problem(str(found[0][0].parent), f"{name} has shards of several dtypes"))
    pieces = tuple(piece for _, _, piece in found)
    ends = [[a + b for a, b in zip(piece.offsets, piece.sizes, strict=True)] for piece in pieces]
    return StoredTensor(tuple(map(max, zip(*ends, strict=True))), found[0][1], pieces)

"""The tensors of a safetensors file told apart by their bytes, without a tensor library.

The format (https://github.com/huggingface/safetensors#format): the header's length in 8 bytes, little-endian;
the header, a JSON object by tensor name of `dtype`, `shape` and `data_offsets`, the first and the last byte
counted from the header's end; then the data.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from mm_config.schema.errors import Problem, UserError

_METADATA = "__metadata__"
_CHUNK_BYTES = 1 << 20
_SHOWN_DIGITS = 12


def tensor_digests(path: Path) -> dict[str, str]:
    """Each tensor of a file: its dtype, its shape and the start of its sha256.

    The writer's own notes in the header are left out: the library writes them in an order that it draws
    anew each time, so that equal tensors give files of different bytes.

    Raises:
        UserError: The file can't be read or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            return {
                name: _told(file, 8 + length, entry)
                for name, entry in sorted(header.items())
                if name != _METADATA
            }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(Problem(str(path), f"can't be read as safetensors: {error}")) from error


def _told(file: BinaryIO, start: int, entry: dict[str, Any]) -> str:
    first, last = entry["data_offsets"]
    shape = "x".join(map(str, entry["shape"])) or "scalar"
    return f"{entry['dtype']} {shape} {_digest(file, start + first, last - first)[:_SHOWN_DIGITS]}"


def _digest(file: BinaryIO, start: int, count: int) -> str:
    file.seek(start)
    digest = hashlib.sha256()
    while count > 0 and (chunk := file.read(min(count, _CHUNK_BYTES))):
        digest.update(chunk)
        count -= len(chunk)
    return digest.hexdigest()

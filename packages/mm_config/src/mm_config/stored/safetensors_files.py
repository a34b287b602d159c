"""What a safetensors file says of itself, read from its header: no tensor library is needed for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm_config.durable.reading import open_regular

COMMENT = "comment"
"""The key of the metadata that says where the tensors come from."""
_MAX_HEADER_BYTES = 1 << 24


def comment_in_header(path: Path) -> str:
    """The comment in the metadata of a safetensors file; empty where there is none, or it is no such file.

    Raises:
        OSError: The file can't be read.
    """
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER_BYTES:
            return ""
        header = file.read(size)
    try:
        content: Any = json.loads(header)
        comment = content["__metadata__"][COMMENT]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return comment if isinstance(comment, str) else ""

"""What a file holds, in 64 hex digits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mm_config.durable.reading import open_regular


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes. Raises OSError where it can't be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_and_sha256(path: Path) -> dict[str, Any]:
    """A manifest's entry for a file: `bytes` and `sha256`. Raises OSError where it can't be read."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}

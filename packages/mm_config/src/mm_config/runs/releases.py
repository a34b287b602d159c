"""What named releases were when a run used them: a name tells where weights are sought, not what they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mm_config.options.locations import Locations
from mm_config.schema.errors import UserError
from mm_config.schema.evolve import specs_inside
from mm_config.specs.weights import ReleasedWeights

_SAMPLE = 2**20
"""Bytes at each end of a file that are read: whole releases have tens of gigabytes."""


def used_releases(spec: Any, locations: Locations) -> dict[str, dict[str, str]]:
    """Path and fingerprint of each release that a spec names and the table has, by its name and subfolder.

    Weights of trainings that the spec depends on are theirs to record.
    """
    found: dict[str, dict[str, str]] = {}
    named = (value for _, value, _, _ in specs_inside(spec) if isinstance(value, ReleasedWeights))
    for release in named:
        name = f"{release.name}/{release.subfolder}".rstrip("/")
        try:
            path = locations.resolve(release.name) / release.subfolder
            found[name] = {"path": str(path.absolute()), "fingerprint": fingerprint(path)}
        except (UserError, OSError):
            continue  # Whoever needs it says so; features that were made before need no encoder.
    return found


def fingerprint(path: Path) -> str:
    """sha256 over name, size, first and last MiB of each file of a folder, or of one file.

    Other weights of the same network differ in it; a file that was changed in its middle alone does not.
    """
    digest = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if _counts(one, path)) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name} {size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            stream.seek(max(_SAMPLE, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def _counts(file: Path, folder: Path) -> bool:
    """Files that are not hidden: downloaders keep their own notes in hidden folders."""
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)

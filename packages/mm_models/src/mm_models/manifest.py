"""`manifest.json` of a checkpoint: its files, what is in each, and of which step, run and spec it is.

Of a file it holds the size, the sha256, which says what it is, and the xxh3_128 of each block, which whoever
reads it checks. The last line is a digest of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from xxhash import xxh3_128_hexdigest

from mm_config.content import sha256_of_files
from mm_config.durable import outside, synced_file
from mm_config.runs import STATUS_FILE
from mm_config.schema import UserError
from mm_config.stored import read_json
from mm_models.blocks import BLOCK_BYTES, Blocks, changed, changed_blocks

STATE = "state.json"
MANIFEST = "manifest.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_READERS = 4


@attrs.frozen
class Entry:
    """What is known of a file."""

    bytes: int
    """Its size."""
    sha256: str
    """64 hex digits."""
    blocks: Blocks | None
    """None in manifests of the first version, which have no digests of blocks."""


@attrs.frozen
class Manifest:
    """What was written."""

    files: Mapping[str, Entry]
    """By name, from the checkpoint's folder."""
    step: int | None = None
    """Optimizer steps; None for weights that no run of ours trained."""
    run: Mapping[str, str] | None = None
    """What `run_of` said of its folder."""


def write_manifest(
    folder: Path,
    files: Mapping[str, Mapping[str, Any]],
    step: int | None = None,
    run: Mapping[str, str] | None = None,
) -> None:
    """Writes a checkpoint's manifest onto the disk.

    Args:
        folder: The checkpoint, whose other files are there.
        files: What `entry_of` says of each, by name.
        step: Optimizer steps.
        run: What `run_of` says of the place that the folder will have.
    """
    content = {"v": 2, "block_bytes": BLOCK_BYTES, "files": files, "step": step, "run": run}
    with synced_file(folder / MANIFEST) as file:
        file.write(json.dumps({**content, "xxh3_128": _digest(content)}, indent=2).encode())


def read_manifest(folder: Path) -> Manifest | str:
    """What a manifest says, or what is wrong with it. A link among a run's checkpoints is none of them."""
    if folder.is_symlink() and run_of(folder) is not None:
        return "it is a link, which is not followed"
    if not (folder / MANIFEST).exists():
        return f"{MANIFEST} is missing"
    try:
        stored = read_json(folder / MANIFEST)
        if stored["v"] == 1 and stored.keys() == {"v", "files"}:
            return Manifest(_entries(folder, stored["files"], None), _step_of_state(folder))
        if stored["v"] != 2:
            return f"{MANIFEST} is unreadable"
        if stored.pop("xxh3_128") != _digest(stored):
            return changed(MANIFEST)
        run = stored["run"] and {name: str(stored["run"][name]) for name in ("uid", "spec_hash")}
        return Manifest(_entries(folder, stored["files"], stored["block_bytes"]), stored["step"], run)
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{MANIFEST} is unreadable"


def run_of(folder: Path) -> dict[str, str] | None:
    """The run whose checkpoint lies there, by its `uid` and `spec_hash`; None where no run's folder is."""
    place = folder.absolute()
    if place.parent.name != "checkpoints":
        return None
    try:
        status = read_json(place.parents[1] / STATUS_FILE)
    except UserError:
        return None
    return {name: str(status.get(name)) for name in ("uid", "spec_hash")}


def misplaced(folder: Path, listed: Manifest) -> list[str]:
    """Why a checkpoint is not the one that its name and its run ask for; nothing where it is."""
    name, here = _STEP_FOLDER.fullmatch(folder.absolute().name), run_of(folder)
    if name is None or (listed.step is None and here is None):
        return []
    if listed.step != int(name[1]):
        found = "no run" if listed.step is None else f"step {listed.step}"
        return [f"it is a checkpoint of {found}, not of step {int(name[1])}"]
    if listed.run is None or here is None or here == listed.run:
        return []
    found, wanted = (f"run {one['uid'][:12]} of spec {one['spec_hash'][:12]}" for one in (listed.run, here))
    return [f"it is a checkpoint of {found}, not of {wanted}"]


def changed_files(folder: Path, files: Mapping[str, Entry]) -> list[str]:
    """Which files are not as they were written; those with digests of blocks by these, others by sha256.

    A sha256 is remembered until the file changes.
    """
    old = [name for name, entry in files.items() if entry.blocks is None]
    found = dict(zip(old, sha256_of_files(folder / name for name in old), strict=True)) if old else {}
    problems = [changed(name) for name, digest in found.items() if digest != files[name].sha256]
    new = [(folder / name, entry.blocks) for name, entry in files.items() if entry.blocks is not None]
    with ThreadPoolExecutor(_READERS) as pool:
        indexes = list(pool.map(lambda pair: changed_blocks(*pair), new))
    return problems + [
        blocks.changed(found) for (_, blocks), found in zip(new, indexes, strict=True) if found
    ]


def _entries(folder: Path, stored: Mapping[str, Any], block_bytes: int | None) -> dict[str, Entry]:
    files: dict[str, Entry] = {}
    for name, entry in stored.items():
        size, sha256 = entry["bytes"], entry["sha256"]
        if type(size) is not int or size < 0 or outside(name, folder):
            raise ValueError(name)
        blocks = None
        if block_bytes is not None:
            blocks = Blocks(folder, name, size, block_bytes, tuple(entry["xxh3_128"]))
            if block_bytes < 1 or len(blocks.digests) != -(-size // block_bytes):
                raise ValueError(name)
        files[name] = Entry(size, sha256, blocks)
    if STATE not in files:
        raise ValueError(STATE)
    return files


def _step_of_state(folder: Path) -> int | None:
    """The step of a checkpoint whose manifest has none."""
    try:
        return read_json(folder / STATE).get("step")
    except UserError:
        return None


def _digest(content: Mapping[str, Any]) -> str:
    return xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())

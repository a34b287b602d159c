"""Checkpoints compared by what was written into them, as their manifests tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mm_config.durable import open_regular, outside, sha256_of
from mm_config.reproducing import TENSORS, Difference, changed, shares
from mm_config.schema import Problem, UserError
from mm_config.stored import read_json
from mm_models.checkpoint import MANIFEST, STATE

_HOW_IT_WAS_CARRIED_OUT = ("seconds", "spec", "exact_hash", "world_size")
"""Keys of a checkpoint's state that equal runs need not share: the spec is there with its label."""
_CHUNK_BYTES = 1 << 20
_SHOWN_DIGITS = 12


def checkpoint_differences(step: int, old: Path, new: Path) -> Iterator[Difference]:
    """The files in which two checkpoints differ: each by its sha256, of tensors and of the state by name.

    Files of the old checkpoint are read, because they may have changed since they were written; those of
    the new one were read when its manifest was made.
    """
    before, after = _digests_by_manifest(old), _digests_by_manifest(new)
    if before is None or after is None:
        was, is_now = ("missing or unreadable" if files is None else "whole" for files in (before, after))
        yield Difference(f"step {step}", f"checkpoint {MANIFEST}", was, is_now, TENSORS)
        return
    for name in sorted({*before, *after}):
        written, rewritten = before.get(name), after.get(name)
        where, value = f"step {step}", f"checkpoint {name}"
        if written is not None and (damage := _damage(old / name, written)):
            was = f"{_short_digest(written)} ({damage})"
            yield Difference(where, value, was, _short_digest(rewritten), TENSORS, damaged=True)
        elif written is None or rewritten is None:
            yield Difference(where, value, _short_digest(written), _short_digest(rewritten), TENSORS)
        elif written != rewritten:
            content, content_now = _content(old / name, written), _content(new / name, rewritten)
            parts = list(changed(content, content_now))
            measured = shares(old / name, new / name) if parts else {}
            for key, was, is_now in parts:
                part = f"{value} {key}".rstrip()
                yield Difference(where, part, was, is_now, TENSORS, measured.get(key))


def tensor_digests(path: Path) -> dict[str, str]:
    """Each tensor of a file: its dtype, its shape and the start of its sha256.

    The writer's own notes in the header are left out: the library writes them in an order that it draws
    anew each time, so that equal tensors give files of different bytes.

    Raises:
        UserError: The file can't be read or is no safetensors file.
    """
    # https://github.com/huggingface/safetensors#format: the header's length in 8 bytes, little-endian; the
    # header, a JSON object by tensor name of `dtype`, `shape` and `data_offsets`, the first and the last byte
    # counted from the header's end; then the data.
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is cut short")
            header: dict[str, Any] = json.loads(file.read(length))
            return {
                name: _tensor(file, 8 + length, entry)
                for name, entry in sorted(header.items())
                if name != "__metadata__"
            }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(Problem(str(path), f"can't be read as safetensors: {error}")) from error


def _digests_by_manifest(folder: Path) -> dict[str, str] | None:
    """The sha256 of each file by the manifest, or None where there is no sound manifest."""
    try:
        files: Mapping[str, Any] = read_json(folder / MANIFEST)["files"]
        if any(outside(name, folder) for name in files):
            return None
        return {name: str(entry["sha256"]) for name, entry in files.items()}
    except (UserError, AttributeError, LookupError, TypeError):
        return None


def _damage(path: Path, written: str) -> str | None:
    if not path.is_file():
        return "missing by now"
    found = sha256_of(path)
    return None if found == written else f"changed to {_short_digest(found)} since it was written"


def _content(path: Path, digest: str) -> dict[str, str]:
    """What a file says, by name: tensors, keys of the state; of any other file, its digest alone."""
    if path.suffix == ".safetensors":
        return tensor_digests(path)
    if path.name != STATE:
        return {"": _short_digest(digest)}
    state = read_json(path)
    compared = sorted(state.keys() - set(_HOW_IT_WAS_CARRIED_OUT))
    return {key: json.dumps(state[key], sort_keys=True) for key in compared}


def _short_digest(digest: str | None) -> str:
    return "none" if digest is None else digest[:_SHOWN_DIGITS]


def _tensor(file: BinaryIO, start: int, entry: dict[str, Any]) -> str:
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

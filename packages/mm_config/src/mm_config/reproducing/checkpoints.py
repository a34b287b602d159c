"""Checkpoints compared by what was written into them, as their manifests tell; the format is mm_models'."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.durable.digests import sha256_of
from mm_config.reproducing.difference import Difference
from mm_config.reproducing.tensors import tensor_digests
from mm_config.runs.record import read_json
from mm_config.schema.errors import UserError

_MANIFEST = "manifest.json"
_STATE = "state.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_HOW_IT_WAS_CARRIED_OUT = ("seconds", "spec", "exact_hash", "world_size")
"""Keys of a checkpoint's state that equal runs need not share: the spec is there with its label."""
_SHOWN_DIGITS = 12


def checkpoints_of(run_dir: Path) -> dict[int, Path]:
    """The checkpoints of a run folder by step; those still being written are left out."""
    folders = (run_dir / "checkpoints").glob("step-*")
    matches = [(_STEP_FOLDER.fullmatch(folder.name), folder) for folder in folders]
    return {int(match[1]): folder for match, folder in sorted(matches, key=_name) if match}


def checkpoint_differences(step: int, old: Path, new: Path) -> Iterator[Difference]:
    """The files in which two checkpoints differ: each by its sha256, of tensors and of the state by name.

    Files of the old checkpoint are read, because they may have changed since they were written; those of
    the new one were read when its manifest was made.
    """
    before, after = _listed(old), _listed(new)
    if before is None or after is None:
        yield Difference(f"step {step}", f"checkpoint {_MANIFEST}", _readable(before), _readable(after))
        return
    for name in sorted({*before, *after}):
        written, rewritten = before.get(name), after.get(name)
        where, value = f"step {step}", f"checkpoint {name}"
        if written is not None and (damage := _damage(old / name, written)):
            yield Difference(where, value, f"{_shown(written)} ({damage})", _shown(rewritten))
        elif written is None or rewritten is None:
            yield Difference(where, value, _shown(written), _shown(rewritten))
        elif written != rewritten:
            told, told_now = _content(old / name, written), _content(new / name, rewritten)
            for key in {**told, **told_now}:
                was, is_now = told.get(key, "none"), told_now.get(key, "none")
                if was != is_now:
                    yield Difference(where, f"{value} {key}".rstrip(), was, is_now)


def _name(found: tuple[object, Path]) -> str:
    return found[1].name


def _listed(folder: Path) -> dict[str, str] | None:
    """The sha256 of each file by the manifest, or None where there is no sound manifest."""
    try:
        files: Mapping[str, Any] = read_json(folder / _MANIFEST)["files"]
        return {name: str(entry["sha256"]) for name, entry in files.items()}
    except (UserError, AttributeError, LookupError, TypeError):
        return None


def _damage(path: Path, written: str) -> str | None:
    if not path.is_file():
        return "missing by now"
    found = sha256_of(path)
    return None if found == written else f"changed to {_shown(found)} since it was written"


def _content(path: Path, digest: str) -> dict[str, str]:
    """What a file says, by name: tensors, keys of the state; of any other file, its digest alone."""
    if path.suffix == ".safetensors":
        return tensor_digests(path)
    if path.name != _STATE:
        return {"": _shown(digest)}
    state = read_json(path)
    compared = sorted(state.keys() - set(_HOW_IT_WAS_CARRIED_OUT))
    return {key: json.dumps(state[key], sort_keys=True) for key in compared}


def _readable(manifest: Mapping[str, str] | None) -> str:
    return "missing or unreadable" if manifest is None else "whole"


def _shown(digest: str | None) -> str:
    return "none" if digest is None else digest[:_SHOWN_DIGITS]

"""Training states on disk: safetensors by torch's distributed checkpoint, JSON for all else.

A checkpoint is a folder `step-00000700/` with one folder of safetensors per group of tensors,
`state.json`, and `manifest.json` with the size and sha256 of every file. It is written beside its place
as `step-00000700.tmp` and renamed when complete, so a folder without the suffix was once whole.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from mm_config.errors import UserError

STATE = "state.json"
MANIFEST = "manifest.json"
_STEP_FOLDER = re.compile(r"step-\d{8,}")


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
    """Writes a checkpoint; every rank calls it where torch.distributed is initialised.

    Args:
        folder: Where it will be, such as `checkpoints/step-00000700`, on a file system all ranks share.
        tensors: Named tensors by group (`model`, `optimizer`), plain or sharded. Plain ones are equal on all
            ranks.
        state: Everything else, as JSON; rank 0's is written.
    """
    text = json.dumps(state, allow_nan=False, indent=2, sort_keys=True)
    for group, named in tensors.items():
        # The writer would hide anything else as a pickle under a safetensors name.
        strangers = [name for name, value in named.items() if not isinstance(value, Tensor)]
        assert not strangers, f"{group} holds non-tensors: {strangers[:10]}"
    rank, world_size = _rank_and_world_size()
    staged = folder.with_name(folder.name + ".tmp")
    if rank == 0:
        shutil.rmtree(staged, ignore_errors=True)
        for group in tensors:
            (staged / group).mkdir(parents=True)
        _write_durably(staged / STATE, text)
    _barrier()
    for group, named in tensors.items():
        writer = HuggingFaceStorageWriter(str(staged / group), save_distributed=True)
        with _one_process_is_meant():
            save_distributed(dict(named), storage_writer=writer, no_dist=world_size == 1)
    manifest = _digests(staged, rank, world_size)
    if rank == 0:
        _write_durably(staged / MANIFEST, json.dumps({"v": 1, "files": manifest}, indent=2, sort_keys=True))
        for path in (*(staged / group for group in tensors), staged):
            _sync_folder(path)
        if folder.exists():
            shutil.rmtree(folder)
        staged.rename(folder)
        _sync_folder(folder.parent)
    _barrier()


def load_into(folder: Path, group: str, tensors: Mapping[str, Tensor]) -> None:
    """Fills tensors in place from a checkpoint's group; each rank reads only what its shards need.

    Raises:
        UserError: The group is missing, or its names or shapes differ.
    """
    if not (folder / group).is_dir():
        raise UserError(f"{folder} holds no {group!r}")
    fill_from_safetensors(folder / group, tensors)


def fill_from_safetensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fills tensors in place from all the safetensors files of a folder, casting to their dtype.

    Raises:
        UserError: Names or shapes differ; the first ten are listed.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored = {name: tuple(entry.size) for name, entry in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if differing := _differences(stored, wanted):
        more = [f"and {len(differing) - 10} more"] if len(differing) > 10 else []
        raise UserError(f"{folder} does not fit: " + "; ".join([*differing[:10], *more]))
    with _one_process_is_meant():
        load_distributed(dict(tensors), storage_reader=reader, no_dist=_rank_and_world_size()[1] == 1)


def read_state(folder: Path) -> dict[str, Any]:
    """What `save` got as `state`."""
    return json.loads((folder / STATE).read_text())


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint: missing, changed or unexpected files; nothing where it is intact."""
    try:
        listed: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (ValueError, KeyError, TypeError):
        return [f"{MANIFEST} is unreadable"]
    problems = []
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, {expected['bytes']} were written")
        elif _sha256(path) != expected["sha256"]:
            problems.append(f"{name} has changed since it was written")
    strangers = {_name(folder, path) for path in _files(folder)} - {*listed, MANIFEST}
    return problems + [f"{name} is not in {MANIFEST}" for name in sorted(strangers)]


def latest(checkpoints_dir: Path) -> Path | None:
    """The newest intact checkpoint, found by looking: staged and damaged folders are passed over."""
    if not checkpoints_dir.is_dir():
        return None
    folders = [path for path in checkpoints_dir.iterdir() if _STEP_FOLDER.fullmatch(path.name)]
    newest_first = sorted(folders, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
    return next((path for path in newest_first if not verify(path)), None)


def _differences(stored: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> list[str]:
    missing = [f"{name} is missing" for name in wanted if name not in stored]
    extra = [f"{name} is not wanted" for name in stored if name not in wanted]
    misshapen = [
        f"{name} is {stored[name]}, {shape} is wanted"
        for name, shape in wanted.items()
        if name in stored and stored[name] != shape
    ]
    return misshapen + missing + extra


def _rank_and_world_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def _one_process_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _digests(folder: Path, rank: int, world_size: int) -> dict[str, Any]:
    """Size and sha256 of every file; the ranks share the reading."""
    _barrier()
    mine = {
        _name(folder, path): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in _files(folder)[rank::world_size]
    }
    if world_size == 1:
        return mine
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, mine)
    return {name: digest for part in parts for name, digest in part.items()}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Training states on disk: safetensors by torch's distributed checkpoint, JSON for all else.

A checkpoint is a folder `step-00000700/` with one folder of safetensors per group of tensors,
`state.json`, and `manifest.json` with the size and sha256 of every file. It is written beside its place
as `step-00000700.tmp` and renamed when complete, so a folder without the suffix was once whole.
"""

import errno
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from mm_config.content import sha256_of_files
from mm_config.durable import place_folder, sha256_of, size_and_sha256, synced_file
from mm_models.collectives import gather_from_files, rank_and_world_size, write_on_first

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

    Raises:
        OSError: It can't be written, or an intact checkpoint is there already: that one is never replaced.
            Every rank raises it, and what was there before is untouched.
    """
    text = json.dumps(state, allow_nan=False, indent=2, sort_keys=True)
    for group, named in tensors.items():
        # The writer would hide anything else as a pickle under a safetensors name.
        strangers = [name for name, value in named.items() if not isinstance(value, Tensor)]
        assert not strangers, f"{group} holds non-tensors: {strangers[:10]}"
    staged = folder.with_name(folder.name + ".tmp")
    write_on_first(lambda: _begin(staged, folder, tensors, text))
    for group, named in tensors.items():
        _write_group(staged / group, named)
    files = {
        name: digest for part in gather_from_files(lambda: _digests(staged)) for name, digest in part.items()
    }
    write_on_first(lambda: _complete(staged, folder, files))


def _begin(staged: Path, folder: Path, groups: Iterable[str], state: str) -> None:
    if folder.exists() and not verify(folder):
        raise FileExistsError(errno.EEXIST, "an intact checkpoint is there already", str(folder))
    if staged.exists():
        shutil.rmtree(staged)
    for group in groups:
        (staged / group).mkdir(parents=True)
    _write(staged / STATE, state)


def _write_group(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _plain_errors():
        save_distributed(dict(tensors), storage_writer=writer, no_dist=rank_and_world_size()[1] == 1)


def _complete(staged: Path, folder: Path, files: dict[str, Any]) -> None:
    """Writes the manifest, and renames once everything is on the disk; the writer has synced its files."""
    _write(staged / MANIFEST, json.dumps({"v": 1, "files": files}, indent=2, sort_keys=True))
    if folder.exists():
        shutil.rmtree(folder)  # It is damaged: `_begin` refuses to replace an intact one.
    place_folder(staged, folder)


def _write(path: Path, text: str) -> None:
    with synced_file(path) as file:
        file.write(text.encode())


def read_state(folder: Path) -> dict[str, Any]:
    """What `save` got as `state`."""
    return json.loads((folder / STATE).read_text())


def verify(folder: Path, *, hashed: bool = True) -> list[str]:
    """What is wrong with a checkpoint: missing, changed or unexpected files; nothing where it is intact.

    Args:
        folder: The checkpoint.
        hashed: Whether files are read and hashed; otherwise only their names and sizes are compared.
    """
    listed = _files_by_manifest(folder)
    if isinstance(listed, str):
        return [listed]
    problems = []
    for name, (size, digest) in listed.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != size:
            problems.append(f"{name} has {path.stat().st_size} bytes, {size} were written")
        elif hashed and sha256_of(path) != digest:
            problems.append(_changed(name))
    strangers = {_name(folder, path) for path in _files(folder)} - {*listed, MANIFEST}
    return problems + [f"{name} is not in {MANIFEST}" for name in sorted(strangers)]


def verify_group(folder: Path, group: str) -> list[str]:
    """What is wrong with what is loaded of a checkpoint: a group's files and the state, whose bytes count.

    A file is hashed once, until it changes: a digest is remembered. Of other groups names and sizes are
    compared.
    """
    problems, listed = verify(folder, hashed=False), _files_by_manifest(folder)
    if problems or isinstance(listed, str):
        return problems
    names = [name for name in listed if name == STATE or name.startswith(f"{group}/")]
    digests = sha256_of_files(folder / name for name in names)
    return [_changed(name) for name, found in zip(names, digests, strict=True) if found != listed[name][1]]


def _files_by_manifest(folder: Path) -> dict[str, tuple[int, str]] | str:
    """Size and sha256 of each file as they were written, or why they can't be told."""
    try:
        files: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        return {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is unreadable"


def _changed(name: str) -> str:
    return f"{name} has changed since it was written"


def latest(checkpoints_dir: Path) -> Path | None:
    """The newest intact checkpoint, found by looking: staged and damaged folders are passed over."""
    return next((path for path in newest_first(checkpoints_dir) if not verify(path)), None)


def newest_first(checkpoints_dir: Path) -> list[Path]:
    """What bears the name of a checkpoint, and so was whole once."""
    if not checkpoints_dir.is_dir():
        return []
    named = [path for path in checkpoints_dir.iterdir() if _STEP_FOLDER.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raises what went wrong itself, where torch wraps it with a traceback of each rank."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            failure, _ = next(iter(error.failures.values()))
            raise failure from error


def _digests(folder: Path) -> dict[str, Any]:
    """Size and sha256 of this rank's share of the files; the ranks divide the reading."""
    rank, world_size = rank_and_world_size()
    return {_name(folder, path): size_and_sha256(path) for path in _files(folder)[rank::world_size]}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()

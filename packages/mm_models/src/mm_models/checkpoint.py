"""Training states on disk: safetensors as torch's distributed checkpoint has it, JSON for all else.

A checkpoint is a folder `step-00000700/` with one folder of safetensors per group of tensors,
`state.json`, and `manifest.json`, see `manifest`. It is written beside its place
as `step-00000700.tmp` and renamed when complete, so a folder without the suffix was once whole.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed import ProcessGroup

from mm_config.durable import discard, place_folder, synced_file
from mm_config.running import AVERAGE
from mm_config.stored import read_json
from mm_models.blocks import Blocks, damaged, entry_of
from mm_models.collectives import gather_from_files, rank_and_world_size, write_on_first
from mm_models.manifest import (
    MANIFEST,
    STATE,
    Manifest,
    changed_files,
    misplaced,
    read_manifest,
    run_of,
    write_manifest,
)
from mm_models.shards import Shard, own_shards, write_shards

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
    for group, named in tensors.items():
        strangers = [name for name, value in named.items() if not isinstance(value, Tensor)]
        assert not strangers, f"{group} holds non-tensors: {strangers[:10]}"
    write(folder, {group: own_shards(named) for group, named in tensors.items()}, state)


def write(
    folder: Path,
    shards: Mapping[str, Sequence[Shard]],
    state: dict[str, Any],
    among: ProcessGroup | None = None,
) -> None:
    """As `save`, of what `own_shards` gave of each group, or of copies of it.

    Args:
        folder: As for `save`.
        shards: By group; the groups are the same on every rank.
        state: As for `save`.
        among: The group by which the ranks speak, see `gather_json`.

    Raises:
        OSError: As `save`.
    """
    text = json.dumps(state, allow_nan=False, indent=2, sort_keys=True)
    staged = folder.with_name(folder.name + ".tmp")
    write_on_first(lambda: _begin(staged, folder, shards, text), among)
    written = gather_from_files(lambda: _write_own(staged, shards), among)
    files = {name: entry for part in written for name, entry in part.items()}
    write_on_first(lambda: _complete(staged, folder, files, state.get("step")), among)


def _begin(staged: Path, folder: Path, groups: Iterable[str], state: str) -> None:
    if folder.exists() and not verify(folder):
        raise FileExistsError(errno.EEXIST, "an intact checkpoint is there already", str(folder))
    if os.path.lexists(staged):
        discard(staged)
    for group in groups:
        (staged / group).mkdir(parents=True)
    with synced_file(staged / STATE) as file:
        file.write(state.encode())


def _write_own(staged: Path, shards: Mapping[str, Sequence[Shard]]) -> dict[str, Any]:
    """What the manifest says of the files of this rank."""
    rank, _ = rank_and_world_size()
    written = {STATE: entry_of(staged / STATE)} if rank == 0 else {}
    for group, own in shards.items():
        if own:
            name = f"{group}/shard-{rank + 1:05}-model-00001-of-00001.safetensors"
            written[name] = write_shards(staged / name, own)
    return written


def _complete(staged: Path, folder: Path, files: dict[str, Any], step: int | None) -> None:
    """Writes the manifest, and renames once all is on the disk; the writers have synced their files."""
    write_manifest(staged, files, step, run_of(folder))
    if os.path.lexists(folder):
        discard(folder)  # It is damaged: `_begin` refuses to replace an intact one.
    place_folder(staged, folder)


def holds(folder: Path) -> bool:
    """Whether a checkpoint of ours lies in a folder, be it damaged."""
    return (folder / MANIFEST).is_file() or ((folder / STATE).is_file() and (folder / "model").is_dir())


def whole_of(path: Path) -> Path:
    """The checkpoint whose moving average a path names, `step-00000700/average`; else the path itself."""
    return path.parent if path.name == AVERAGE and holds(path.parent) else path


def lists(folder: Path, path: Path) -> bool:
    """Whether a path is a part, a file or a group, of the checkpoint that lies in a folder."""
    if not ((folder / MANIFEST).is_file() and (folder / STATE).is_file()):
        return False
    listed, own = read_manifest(folder), path.absolute().relative_to(folder.absolute())
    return isinstance(listed, str) or any(own in (name, *name.parents) for name in map(Path, listed.files))


def read_state(folder: Path) -> dict[str, Any]:
    """What `save` got as `state`, of a checkpoint or of the one whose average is named.

    Raises:
        UserError: It can't be read.
    """
    return read_json(whole_of(folder) / STATE)


def at_a_glance(folder: Path) -> list[str]:
    """What is wrong with a checkpoint as far as names and sizes of files tell, which reads none of them."""
    listed = read_manifest(folder)
    return [listed] if isinstance(listed, str) else misplaced(folder, listed) + _wrong_sizes(folder, listed)


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint: missing, changed or unexpected files, or that it is another's.

    Returns:
        A text each; none where it is intact.
    """
    listed = read_manifest(folder)
    if isinstance(listed, str):
        return [listed]
    problems = misplaced(folder, listed) + _wrong_sizes(folder, listed)
    return problems or changed_files(folder, listed.files)


def require_group(folder: Path, group: str) -> dict[Path, Blocks]:
    """Looks whether a checkpoint may be loaded, before a group of it, such as `model`, is read.

    Names and sizes of all files are compared, and the state is hashed. Files whose manifest has no digests of
    blocks are hashed once, until they change: that is remembered.

    Returns:
        The blocks of other files, which whoever reads them checks.

    Raises:
        UserError: It is damaged, or another's.
    """
    listed = read_manifest(folder)
    if isinstance(listed, str):
        raise damaged(folder, [listed])
    own = {name: entry for name, entry in listed.files.items() if name.startswith(f"{group}/")}
    by_reader = {folder / name: entry.blocks for name, entry in own.items() if entry.blocks is not None}
    at_once = {name: entry for name, entry in own.items() if entry.blocks is None}
    problems = misplaced(folder, listed) + _wrong_sizes(folder, listed)
    if problems := problems or changed_files(folder, {STATE: listed.files[STATE], **at_once}):
        raise damaged(folder, problems)
    return by_reader


def _wrong_sizes(folder: Path, listed: Manifest) -> list[str]:
    problems = []
    for name, entry in listed.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry.bytes:
            problems.append(f"{name} has {path.stat().st_size} bytes, {entry.bytes} were written")
    strangers = {_name(folder, path) for path in _files(folder)} - {*listed.files, MANIFEST}
    return problems + [f"{name} is not in {MANIFEST}" for name in sorted(strangers)]


def latest(checkpoints_dir: Path) -> Path | None:
    """The newest intact checkpoint, found by looking: staged and damaged folders are passed over."""
    return next((path for path in newest_first(checkpoints_dir) if not verify(path)), None)


def newest_first(checkpoints_dir: Path) -> list[Path]:
    """What bears the name of a checkpoint, and so was whole once."""
    if not checkpoints_dir.is_dir():
        return []
    named = [path for path in checkpoints_dir.iterdir() if _STEP_FOLDER.fullmatch(path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()

"""Files and folders written beside their place, synced, and renamed: whole or not there, whatever happens.

A reader sees what was there before or all of the new. A killed process leaves a stage, which nothing reads:
who makes the same folder next removes it, `mm runs gc` removes all. Caches can be made again, so their files
need no sync: those are written plainly into a staged folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from mm_config.durable.leftovers import remove_abandoned, siblings, stage_of


def sync(path: Path) -> None:
    """Waits until the disk holds what was written into a file, or which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def synced_file(path: Path) -> Generator[BinaryIO]:
    """A new file, on the disk where the block ends well: for files in a staged folder.

    Raises:
        OSError: It exists already, or can't be written.
    """
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def staged_file(path: Path) -> Generator[Path]:
    """Where to write a file that takes its place where the block ends well; else the old one stays.

    Raises:
        OSError: It can't be written.
    """
    stage = stage_of(path)
    try:
        yield stage
        sync(stage)
        stage.replace(path)
        sync(path.parent)
    finally:
        stage.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Puts a file, or a new content, in a place. Raises OSError where that fails."""
    with staged_file(path) as stage:
        stage.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Puts a UTF-8 file, or a new content, in a place; line ends stay as they are.

    Raises:
        OSError: It can't be written.
    """
    write_bytes(path, text.encode())


@contextmanager
def staged_folder(path: Path) -> Generator[Path]:
    """A new folder to write into: it takes its place where the block ends well, and is removed otherwise.

    Several may write the same folder at once, and one succeeds.

    Raises:
        FileExistsError: The place is taken.
        OSError: It can't be written.
    """
    remove_abandoned(siblings(path))
    stage = stage_of(path)
    stage.mkdir(parents=True)
    try:
        yield stage
        place_folder(stage, path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def place_folder(stage: Path, path: Path) -> None:
    """Renames a folder whose files are on the disk; its names, and then its own, reach the disk as well.

    Raises:
        FileExistsError: The place is taken, be it by an empty folder or a dangling link.
        OSError: It can't be renamed.
    """
    for folder, _, _ in os.walk(stage):
        sync(Path(folder))
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    stage.rename(path)
    sync(path.parent)


def discard(path: Path, stage: Path | None = None) -> None:
    """Removes a file, a link or a folder: renamed first, so that its name never stands for half of it.

    Args:
        path: What is removed.
        stage: Where it lies while it is deleted, on the same file system; without one it is beside its
            place, as what a killed process leaves.

    Raises:
        OSError: It can't be renamed, and is as it was; or can't be deleted, and its name is gone.
    """
    remove_abandoned(siblings(path))
    stage = stage or stage_of(path)
    path.rename(stage)
    sync(path.parent)
    if stage.is_dir() and not stage.is_symlink():
        shutil.rmtree(stage)
    else:
        stage.unlink()


def place_aside(path: Path) -> Path:
    """Where what is damaged is kept: `NAME.damaged` beside its place, or the next free `NAME.damaged-2`."""
    names = (f"{path.name}.damaged{'' if number == 1 else f'-{number}'}" for number in count(1))
    return next(free for name in names if not os.path.lexists(free := path.with_name(name)))


def set_aside(path: Path) -> Path:
    """Renames what is damaged and returns its new place. Raises OSError where that fails."""
    aside = place_aside(path)
    path.rename(aside)
    sync(path.parent)
    return aside

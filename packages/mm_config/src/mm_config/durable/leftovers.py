"""What a killed process leaves: stages, whose names tell the process that made them.

A stage is `.NAME.MACHINE-PID-START-DRAWN.tmp`, in hexadecimal. MACHINE stands for the boot of the kernel and
the namespace of process ids, so that a stage of another machine or container is never judged; START is when
the process started, which tells it from a later one with its id.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

_STAGE = re.compile(
    r"\.(?P<name>.*)\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9a-f]+)-(?P<start>[0-9a-f]+)-.{4}\.tmp", re.S
)
_MOST_BYTES = 200
"""Of the part of a stage's name that tells what it becomes; a file system takes names of 255."""
_UNKNOWN = "0" * 8


def stage_of(path: Path) -> Path:
    """A name beside a path that no other writer of it has, and that tells its process."""
    name = os.fsdecode(os.fsencode(path.name)[:_MOST_BYTES])
    owner = f"{_machine()}-{os.getpid():x}-{_started_at(os.getpid()) or 0:x}"
    return path.with_name(f".{name}.{owner}-{uuid4().hex[:4]}.tmp")


def is_abandoned(stage: Path) -> bool | None:
    """Whether the process that made a stage has ended; None where nothing here can prove either."""
    told = _STAGE.fullmatch(stage.name)
    if told is None or told["machine"] != _machine() or _UNKNOWN in (told["machine"], f"{told['start']:0>8}"):
        return None
    return has_ended(int(told["pid"], 16), int(told["start"], 16))


def has_ended(pid: int, start: int) -> bool | None:
    """Whether a process that started so many ticks after the boot has ended; None where that is not told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It lives, for another user.
    except OverflowError:
        return None
    started = _started_at(pid)
    return None if started is None else started != start


def stages(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is a stage by its name, abandoned or not; links are not followed."""
    for at, folders, files in os.walk(folder):
        found = [name for name in (*folders, *files) if name.endswith(".tmp")]
        yield from (Path(at, name) for name in sorted(found))
        folders[:] = sorted(name for name in folders if name not in found)


def remove_abandoned(found: Iterable[Path]) -> list[Path]:
    """Removes the stages of processes that have ended, and returns them; what can't be removed stays."""
    return [stage for stage in found if is_abandoned(stage) and remove(stage)]


def siblings(path: Path) -> list[Path]:
    """The stages of a path."""
    named = os.fsdecode(os.fsencode(path.name)[:_MOST_BYTES])
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    return [path.with_name(name) for name in names if (of := _STAGE.fullmatch(name)) and of["name"] == named]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(Path(at, name).lstat().st_size for at, _, names in os.walk(path) for name in names)


def remove(stage: Path) -> bool:
    """Removes a stage, and returns whether that could be done."""
    try:
        if stage.is_dir() and not stage.is_symlink():
            shutil.rmtree(stage)
        else:
            stage.unlink()
    except OSError:
        return False
    return True


def _machine() -> str:
    """Which kernel runs since when, and whose process ids these are; zeros where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return hashlib.sha256(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    except OSError:
        return _UNKNOWN


def _started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None for a zombie and where nothing tells."""
    try:
        # Field 22 of proc(5); the second field, the command, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] == b"Z" else int(fields[19])
    except (OSError, LookupError, ValueError):
        return None

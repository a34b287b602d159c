"""One process per run folder: numbered locks, the last of which tells who holds the folder.

A lock is a folder `lock-N` with the file `holder`: its process and machine. It is written aside, locked by
`flock`, and renamed into place, so that it is whole from its first moment, and of several processes one gets
a number. No lock is ever removed: who gives the folder back empties its file, and the next one takes the next
number. The kernel frees a `flock` however its process ends, so nothing that one leaves keeps others out.

A kernel answers for the processes that it runs. What a lock of another machine means after its process was
killed is only known where the file system keeps `flock` for all machines, which nobody can tell from here: a
person says that it has ended. Where the kernel sees that it hasn't, saying so changes nothing.

Before there were numbers, the file `lock` named the process. It counts until a first number is taken.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mm_config.durable.leftovers import has_ended, stage_of
from mm_config.schema.errors import Problem, UserError
from mm_config.stored.json_files import read_json

PREFIX = "lock-"
HOLDER_FILE = "holder"
_UNNUMBERED = "lock"
_MOST_BYTES = 1024
_held: dict[tuple[int, int], BinaryIO] = {}
"""The open files whose `flock` this process has, by the device and the number of the run folder."""


def acquire(folder: Path, *, take_over: bool = False, option: str = "") -> None:
    """Takes the lock of a run folder.

    Args:
        folder: The run folder.
        take_over: Whether a person says that a process of another machine has ended.
        option: The option by which a person says so.

    Raises:
        UserError: A living process holds it, or one of another machine may.
        OSError: It can't be written.
    """
    number = _last(folder)
    holder, is_certain = _holder(folder, number)
    if holder and (is_certain or not take_over):
        ended = "" if is_certain else f"; if that has ended, add {option}"
        raise UserError(Problem(str(folder), f"the run is in use by {holder}{ended}"))
    lock = folder / f"{PREFIX}{number + 1}"
    stage = stage_of(lock)
    file = None
    try:
        stage.mkdir()
        file = (stage / HOLDER_FILE).open("xb")
        file.write(f"{os.getpid()} {platform.node()} {_boot()}".encode())
        file.flush()
        _lock(file.fileno(), fcntl.LOCK_EX)
        stage.rename(lock)
    except OSError as error:
        if file is not None:
            with suppress(OSError):  # What a full disk did not take is written again when a file closes.
                file.close()
        shutil.rmtree(stage, ignore_errors=True)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise UserError(Problem(str(folder), "another process has just taken the run")) from error
        raise
    _held[_key(folder)] = file


def release(folder: Path) -> None:
    """Gives the lock back, where this process has it; where that can't be written, its end frees it."""
    try:
        key = _key(folder)
    except OSError:  # It is gone, and its lock with it.
        key = None
    for held, file in [*_held.items()]:
        if held == key or os.fstat(file.fileno()).st_nlink == 0:
            with suppress(OSError), _held.pop(held):
                file.truncate(0)


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder, as far as this machine can tell."""
    return _holder(folder, _last(folder))[0] is not None


def _last(folder: Path) -> int:
    """The number of the last lock; 0 where there is none."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    numbers = (name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
    return max((int(digits) for digits in numbers if digits.isdecimal()), default=0)


def _holder(folder: Path, number: int) -> tuple[str | None, bool]:
    """Who holds a lock, in words, or None, and whether that is certain.

    One that can't be read, or is damaged, is held where the kernel says so.
    """
    if number == 0:
        return _unnumbered_holder(folder)
    try:
        # A pipe in its place would be waited for.
        file = os.open(folder / f"{PREFIX}{number}" / HOLDER_FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None, True
    try:
        content = os.read(file, _MOST_BYTES).decode(errors="replace").split(" ")
        # Holders lock their file for themselves before others see it, so looking keeps nobody out.
        is_free = _lock(file, fcntl.LOCK_SH)
    except OSError:
        return None, True
    finally:
        os.close(file)
    if content == [""]:
        return None, True
    is_whole = len(content) == 3 and content[0].isdecimal() and content[1].isprintable()
    pid, host, boot = content if is_whole else ("", "", "")
    words = f"process {pid} on {host}" if is_whole else "another process"
    if is_free is False:
        return words, True
    is_here = not is_whole or host == platform.node() or boot == _boot() != ""
    return (None, True) if is_here and is_free else (words, False)


def _unnumbered_holder(folder: Path) -> tuple[str | None, bool]:
    try:
        told = read_json(folder / _UNNUMBERED, {"host": str, "pid": int, "process_started_at": str})
        pid, host, start = told["pid"], told["host"], told["process_started_at"]
        # Where a system has no /proc, the start is "unknown", and nothing can be proved.
        ended = None if host != platform.node() or start == "unknown" else has_ended(pid, int(start))
    except (UserError, LookupError, ValueError):
        return None, True
    return (None, True) if ended else (f"process {pid} on {host}", ended is False)


def _lock(file: int, how: int) -> bool | None:
    """Whether an open file could be locked; None where the file system has no such locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _key(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _boot() -> str:
    """Which kernel runs, since when: containers of one machine share it. Empty where that is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _close_all() -> None:
    for file in _held.values():
        file.close()
    _held.clear()


# A copy of the open file in a forked process would hold the lock after the holder's end.
os.register_at_fork(after_in_child=_close_all)

"""One process per run folder: a lock file that names its holder.

The file works on every shared file system. A lock left by a process of this machine that is gone is
taken over; one of another machine is never judged.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from mm_config.durable.writing import write_text
from mm_config.schema.errors import Problem, UserError

LOCK_FILE = "lock"


def acquire(folder: Path) -> None:
    """Takes the lock of a run folder.

    Raises:
        UserError: A living process, or one of another machine, holds it.
    """
    lock = folder / LOCK_FILE
    if _create(lock):
        return
    # Taking over is guarded by a second lock: of two that find a dead holder, one wins. A dead holder
    # can't release, so nothing moves between the look and the replacement.
    guard = folder / f"{LOCK_FILE}.takeover"
    if not _create(guard):
        raise UserError(Problem(str(folder), f"another process is taking it over; if not, delete {guard}"))
    try:
        if holder := _holder(lock):
            message = f"the run is in use by {holder}; if that has ended, delete {lock}"
            raise UserError(Problem(str(folder), message))
        write_text(lock, _myself())
    finally:
        guard.unlink()


def release(folder: Path) -> None:
    """Gives the lock back; one that somebody has deleted is no reason to lose a run's end."""
    (folder / LOCK_FILE).unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder, as far as this machine can tell."""
    lock = folder / LOCK_FILE
    return lock.exists() and _holder(lock) is not None


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_myself())
    return True


def _holder(lock: Path) -> str | None:
    """Who holds an existing lock, in words; None where that process is gone."""
    try:
        content: dict[str, Any] = json.loads(lock.read_text("utf-8"))
    except FileNotFoundError:
        return "a process that is just ending"
    except json.JSONDecodeError:
        return "a process that is just starting"
    host, pid = content["host"], content["pid"]
    if host == platform.node() and _started_at(pid) != content["process_started_at"]:
        return None
    return f"process {pid} on {host}"


def _myself() -> str:
    pid = os.getpid()
    return json.dumps({"host": platform.node(), "pid": pid, "process_started_at": _started_at(pid)})


def _started_at(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks; tells a reused process id from the first.

    None where there is no such process. Without /proc, a living process is "unknown".
    """
    if Path("/proc/self/stat").exists():
        try:
            # Field 22 of proc(5); the second field, the command, may hold spaces and parentheses.
            return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
        except (FileNotFoundError, ProcessLookupError):
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "unknown"
    return "unknown"

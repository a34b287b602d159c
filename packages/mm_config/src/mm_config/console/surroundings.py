"""What a process needs of the place where it is started, and how it says what is missing."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator

from mm_config.schema.errors import Problem, UserError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENFILE, errno.EMFILE)
_PATH = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
_HOMES = ("HOME", "XDG_CACHE_HOME")
_NO_MEMORY = re.compile(r"allocate memory|not enough memory|map segment|can't start new thread|bad_alloc")
"""What libraries say, by an ImportError or a RuntimeError, where memory or threads run out."""


def require_surroundings() -> None:
    """Checks what nothing can be done without: open streams, a working directory, names in UTF-8.

    Raises:
        UserError: One problem for each that is missing.
    """
    problems = list(_problems())
    if problems:
        raise UserError(problems)


def _problems() -> Iterator[Problem]:
    has_stdout = sys.stdout is not None  # pyright: ignore[reportUnnecessaryComparison]
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    if not has_stdout:
        yield Problem("stdout", "is closed; send it to /dev/null where nobody reads it")
    try:
        named = {"the working directory": os.getcwd()}
    except OSError as error:
        named = {}
        yield Problem("the working directory", f"can't be used: {error.strerror}; change into another one")
    named |= {name: os.environ.get(name, "") for name in _HOMES}
    named |= {f"word {place} of the command line": word for place, word in enumerate(sys.argv)}
    for name, text in named.items():
        if (as_bytes := os.fsencode(text).decode("utf-8", "backslashreplace")) != text:
            yield Problem(name, f"'{as_bytes}' is not UTF-8, which is what paths are stored in; rename it")


def _open_streams() -> None:
    """Fills the places of closed streams: else the next file that is opened gets what is printed."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(file)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False, encoding="utf-8")


def failure(error: BaseException) -> str | None:
    """What to say where memory, stdout, a disk or a path that is given fails; None for any other error."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _no_memory(str(error))
    if isinstance(error, ImportError | RuntimeError) and _NO_MEMORY.search(str(error)):
        return _no_memory(str(error))
    if isinstance(error, OSError) and error.filename is None and (reason := _refused_by_stdout()):
        return f"stdout: can't be written: {reason}"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return str(error)  # pathlib's, before Python 3.13.
    if isinstance(error, OSError) and error.errno in _DISK + _PATH:
        return f"{os.fsdecode(error.filename or 'a file')}: {error.strerror}"
    return None


def _no_memory(said: str) -> str:
    reason = next((line.strip() for line in said.splitlines() if _NO_MEMORY.search(line)), "")
    said = f"memory ran out ({reason})" if reason else "memory ran out"
    return f"{said}: a file or a number is larger than this machine, or its limit, can hold"


def _refused_by_stdout() -> str | None:
    """Why stdout takes nothing, which afterwards goes nowhere; None where it takes an empty line."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.strerror
    return None

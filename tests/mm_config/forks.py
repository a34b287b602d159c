"""Processes that a test forks: several at once, or one that is killed before a call that changes a file."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine, event

from mm_config.schema.errors import UserError

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "sqlite3.connect")


def at_once(works: Sequence[Callable[[], object]]) -> list[str]:
    """Does each work in a process of its own, all from one moment on and until all have answered.

    Returns:
        What each gave, as text: a user's mistake as its lines, another error as its traceback.
    """
    start, end, answers = os.pipe(), os.pipe(), [os.pipe() for _ in works]
    sys.stdout.flush()
    parents = (start[1], end[1], *(writing for _, writing in answers))
    pids = [
        _fork(work, start[0], end[0], mine, parents) for work, (_, mine) in zip(works, answers, strict=True)
    ]
    for _, writing in (start, *answers):
        os.close(writing)
    told: list[str] = []
    for reading, _ in answers:
        with os.fdopen(reading, encoding="utf-8") as file:
            told.append(file.read())
    os.close(end[1])
    for pid in pids:
        os.waitpid(pid, 0)
    for reading, _ in (start, end):
        os.close(reading)
    return told


def alone(work: Callable[[], object]) -> str:
    """Does a work in a process of its own."""
    return at_once([work])[0]


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Whether a work makes so many calls that change a file or a database; it is killed before the last."""

    def counted() -> str:
        left = number

        def count(name: str = "", arguments: Any = ()) -> None:
            nonlocal left
            writes = name == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes or name in CHANGES or name == "database":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        for call in ("before_cursor_execute", "commit"):
            event.listen(Engine, call, lambda *_: count("database"))
        sys.addaudithook(count)
        work()
        return "done"

    answer = alone(counted)
    assert answer in ("", "done"), answer
    return answer == ""


def _fork(work: Callable[[], object], start: int, end: int, answer: int, parents: Sequence[int]) -> int:
    if pid := os.fork():
        return pid
    try:
        for other in parents:
            if other != answer:
                os.close(other)
        os.read(start, 1)
        try:
            text = str(work())
        except UserError as error:
            text = str(error)
        except BaseException:
            text = traceback.format_exc()
        os.write(answer, text.encode())
        os.close(answer)
        os.read(end, 1)
    finally:
        os._exit(0)

"""What processes hold of the machine's memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

MIB = 2**20
POLL_SECONDS = 0.05


def resident() -> int:
    """Bytes that this process holds."""
    return _value(Path("/proc/self/smaps_rollup"), "Rss:")


def alone(way: Callable[[], float]) -> tuple[float, float]:
    """What a way returns in a process of its own, and the peak in MiB of what it and its children hold.

    Memory that several of them share counts once (PSS).
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, repr(way()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, sum(_pss(process) for process in (child, *_below(child))))
            time.sleep(POLL_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    ended.set()
    watcher.join()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"a measured process ended with status {status}")
    return float(answer), peak / MIB


def _below(process: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            children = [int(text) for text in (task / "children").read_text().split()]
            found += [*children, *(below for child in children for below in _below(child))]
    except OSError:
        pass  # It has ended meanwhile.
    return found


def _pss(process: int) -> int:
    try:
        return _value(Path(f"/proc/{process}/smaps_rollup"), "Pss:")
    except OSError:
        return 0


def _value(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0

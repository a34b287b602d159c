"""Where all time of a run went, also over restarts: a file to which its processes add lines.

A line of `ledger.jsonl` is a stretch of the time of the process with the first rank, which follows the one
before it. What lies between two processes is time in which none ran. Stretches after the step that a later
process goes on from are lost: their steps are done again. So the parts add up to the time that passed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from mm_config.durable import read_bytes
from mm_config.schema import Problem, UserError
from mm_train.metrics import MOST_BYTES

FILE = "ledger.jsonl"
PARTS = {
    "training": "steps that count",
    "looking": "validation and samples",
    "waiting": "for data and for other ranks",
    "checkpoints": "saving the state",
    "restart": "starting processes, loading, encoding before the first step",
    "lost": "steps that no checkpoint held, done again",
    "down": "between two processes",
}
"""What time goes into, and what that means."""
_opened_in: list[int] = []
"""The process that has opened a ledger: what it does next is not its start."""


@attrs.frozen
class Account:
    """Where a run's time went."""

    seconds: Mapping[str, float]
    """By part of `PARTS`."""
    processes: int
    """How many worked on it, one after another."""

    @property
    def whole(self) -> float:
        """Seconds from the start of the first process to the last line of the last one."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {spent:.1f} s" for part, spent in self.seconds.items() if spent >= 0.05)
        how = "" if self.processes == 1 else f" in {self.processes} processes"
        return f"{self.whole:.1f} s{how}: {parts}"


def begun(from_command_line: bool) -> float:
    """When what this process does for a run began, in seconds of `time.time`: with the process, where a
    command line started it for its first run, else now.
    """
    if not from_command_line or _opened_in == [os.getpid()]:
        return time.time()
    with suppress(OSError, LookupError, ValueError):
        # Field 22 of proc(5), in ticks since the boot; the second field may hold spaces and parentheses.
        ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    return time.time()


class Ledger:
    """What a process adds to its run's file."""

    def __init__(self, run_dir: Path | None, since: float) -> None:
        """Begins to count.

        Args:
            run_dir: The run folder; None on ranks that write nothing.
            since: When the process began, as `begun` gives it.
        """
        self.step = 0
        """The step that is under way, or the last one where its state is saved."""
        self._file = None if run_dir is None else run_dir / FILE
        self._since = since
        self._rest = "restart"
        self._seconds: dict[str, float] = {}
        self._left: list[dict[str, Any]] = []
        _opened_in[:] = [os.getpid()]
        if run_dir is not None and (earlier := _lines(run_dir)):
            self._since = max(since, earlier[-1]["until"])
            self._left = _left_by_killed(run_dir, earlier[-1])

    @contextmanager
    def during(self, part: str) -> Generator[None]:
        """Counts the time of a block as spent on a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - started

    def ready(self, step: int, ranks: int) -> None:
        """All until now was a start.

        Args:
            step: The step after which the process goes on.
            ranks: How many processes train.

        Raises:
            UserError: As `write`.
        """
        self.step = step
        stretch = self._stretch()
        self._rest = "training"
        self._append(stretch | {"goes_on_from": step, "ranks": ranks})

    def write(self, step: int) -> None:
        """Adds a stretch that ends after a step whose state is saved.

        Raises:
            UserError: The file can't be written.
        """
        self.step = step
        self._append(self._stretch())

    def close(self) -> None:
        """Adds what no line tells yet; where that can't be written, it is left out."""
        with suppress(UserError):
            self._append(self._stretch())

    def account(self) -> Account | None:
        """Where the run's time went; None on ranks that write nothing."""
        return None if self._file is None else account_of(self._file.parent)

    def _stretch(self) -> dict[str, Any]:
        since, self._since = self._since, time.time()
        told, self._seconds = self._seconds, {}
        rest = max(self._since - since - sum(told.values()), 0.0)
        seconds = {self._rest: rest, **told}
        return {"since": since, "until": self._since, "step": self.step, "seconds": seconds}

    def _append(self, line: Mapping[str, Any]) -> None:
        lines, self._left = [*self._left, line], []
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                # A line that a killed process has not ended takes none with it.
                file.write("".join(f"\n{json.dumps(line)}" for line in lines) + "\n")
        except OSError as error:
            raise UserError(Problem(str(self._file), f"can't be written: {error.strerror}")) from error


def account_of(run_dir: Path) -> Account | None:
    """Where the time of a run went; None where its processes wrote no such lines."""
    seconds = dict.fromkeys(PARTS, 0.0)
    kept: list[dict[str, Any]] = []
    processes, until = 0, math.inf
    for line in _lines(run_dir):
        seconds["down"] += max(line["since"] - until, 0.0)
        until = line["until"]
        if "goes_on_from" in line:
            processes += 1
            lost = [one for one in kept if one["step"] > line["goes_on_from"]]
            seconds["lost"] += sum(sum(one["seconds"].values()) for one in lost)
            kept = [one for one in kept if one["step"] <= line["goes_on_from"]]
        kept.append(line)
    for line in kept:
        for part, spent in line["seconds"].items():
            seconds[part] += spent
    return Account(seconds, processes) if processes else None


def _left_by_killed(run_dir: Path, last: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stretch of a process that could not write it, as far as its metrics tell; it is never kept."""
    try:
        until = (run_dir / "metrics.jsonl").stat().st_mtime
    except OSError:
        return []
    if (spent := until - last["until"]) <= 0:
        return []
    return [
        {"since": last["until"], "until": until, "step": last["step"] + 1, "seconds": {"training": spent}}
    ]


def _lines(run_dir: Path) -> list[dict[str, Any]]:
    """The stretches that can be read, in their order."""
    try:
        texts = read_bytes(run_dir / FILE, MOST_BYTES).splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for text in texts:
        with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            line = json.loads(text)
            numbers = [line["since"], line["until"], line["step"], *line["seconds"].values()]
            numbers += [line.get("goes_on_from", 0)]
            known = line["seconds"].keys() <= PARTS.keys()
            if known and all(type(one) in (int, float) and math.isfinite(one) for one in numbers):
                found.append(line)
    return found

"""Starts a program, sends it signals, and says what became of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

import attrs

LONGEST_DRAIN = 10.0
"""Seconds from a signal to the end of the process."""
FIRST_ACT = ("__init__.py", 8)
"""The lines of mm_config that run before Ctrl-C is its own."""
SEED = int(os.environ.get("SIGNAL_SEED", date.today().toordinal()))
"""The day's, so that every day tries others."""
KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def load() -> float:
    """How many processes share a core, at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


@attrs.frozen
class Shot:
    """When which signals are sent to which program."""

    name: str
    """What is started."""
    command: Sequence[str]
    """Its command line."""
    number: signal.Signals
    """The signal."""
    after: float
    """Seconds before it is sent."""
    again: float | None = None
    """Seconds until it is sent once more; None for once."""
    ready: Callable[[], bool] | None = None
    """Whether the seconds before it begin; None for the start of the process."""


@attrs.frozen
class Outcome:
    """What became of a program that got signals."""

    shot: Shot
    """What was sent."""
    status: int
    """Exit status as a shell shows it."""
    seconds: float
    """From the signal to the end."""
    stdout: str
    """What it printed."""
    stderr: str
    """What it complained of."""
    load: float = attrs.field(factory=load)
    """How many processes shared a core."""

    @property
    def word(self) -> str:
        """What became of it, in a word: `ended`, `drained` or `python`, else what went wrong."""
        if self.status == 0 and self.shot.ready is None and self.stdout.endswith("\n"):
            return "had finished"
        if "Traceback" in self.stderr or "Exception ignored" in self.stderr:
            return "python" if self._before_the_first_line() else f"TRACEBACK {self.stderr[-600:]}"
        if self.status != 128 + self.shot.number:
            return f"STATUS {self.status} {self.stderr[-600:]}"
        if self.seconds > LONGEST_DRAIN * self.load:
            return f"SLOW {self.seconds:.1f} s"
        return "drained" if "--resume" in self.stdout else "ended"

    def _before_the_first_line(self) -> bool:
        """Whether a traceback is of the time before the lines that take Ctrl-C over had run."""
        frames = re.findall(r'File "[^"]*/mm_config/([^"]+)", line (\d+)', self.stderr)
        return all((file, int(line)) <= FIRST_ACT for file, line in frames if file != "interrupts.py")


def send(shot: Shot, folder: Path) -> Outcome:
    """Starts the program of a shot in a folder, sends its signals and waits for its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        shot.command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while shot.ready and not shot.ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(shot.after)
    sent = time.monotonic()
    process.send_signal(shot.number)
    if shot.again is not None:
        time.sleep(shot.again)
        process.send_signal(shot.number)
    try:
        stdout, stderr = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
    seconds = time.monotonic() - sent
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Outcome(shot, status, seconds, stdout, stderr)


def table(outcomes: Iterable[Outcome]) -> str:
    """How often what became of which program, by signal, and the longest time to the end."""
    found = list(outcomes)
    counts = Counter(
        (one.shot.name, one.shot.number.name, "once" if one.shot.again is None else "twice", one.word)
        for one in found
    )
    lines = [
        f"{name:<12} {kind:<8} {often:<6} {count:>4}  {word}"
        for (name, kind, often, word), count in sorted(counts.items())
    ]
    latest = max((one.shot.after for one in found if one.word == "python"), default=0.0)
    slowest = max(one.seconds for one in found)
    return "\n".join(
        [*lines, f"slowest end {slowest:.2f} s; Python's own traceback up to {latest * 1000:.0f} ms"]
    )


MM = str(Path(sys.executable).with_name("mm"))

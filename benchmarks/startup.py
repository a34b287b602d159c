"""Commands that answer from a spec alone, as multiples of importing the libraries that such programs use.

    python benchmarks/startup.py

Each command is a whole process, run in turn with the others, so that a busy moment of the machine meets
all of them; the fastest of each are compared. Exit status: 0 where every target is met, 1 otherwise,
2 where a command fails.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
ROUNDS = 9
HIGH, LOW = "experiments/wan22_high.py", "experiments/wan22_low.py"
LIBRARIES = [name for name in ("attrs", "cattrs", "tyro") if importlib.util.find_spec(name)]


@attrs.frozen
class Command:
    """One process that is timed."""

    name: str
    arguments: tuple[str, ...]
    """What follows `python`."""
    target: float | None = None
    """The multiple of the first command that it may take."""
    status: int = 0
    """Its exit status."""


BASELINE = Command(f"import {', '.join(LIBRARIES)}", ("-c", f"import {', '.join(LIBRARIES)}"))
COMMANDS = (
    BASELINE,
    Command("mm hash", ("-m", "mm_config", "hash", HIGH), 1.6),
    Command("mm diff", ("-m", "mm_config", "diff", HIGH, LOW), 1.6, status=1),
    Command("experiment --help", (HIGH, "--help"), 2.2),
    Command("mm plan", ("-m", "mm_config", "plan", HIGH)),
    Command("mm --help", ("-m", "mm_config", "--help")),
    Command("TAB on a field", ("-m", "mm_config", "_complete", "zsh", "hash", HIGH, "--spec.")),
    Command("import torch", ("-c", "import torch")),
)


def main() -> int:
    """Prints a line per command."""
    if "cattrs" not in LIBRARIES:
        print("cattrs is not installed: the baseline is without it, so the ratios are a little higher")
    # Libraries are installed with their bytecode; the first round writes ours and is not counted.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[Command, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(1 + ROUNDS):
        for command, times in seconds.items():
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *command.arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            times.append(time.perf_counter() - started)
            if done.returncode != command.status:
                print(f"{command.name} ended with status {done.returncode}, expected {command.status}")
                return 2
    fastest = {command: min(times[1:]) for command, times in seconds.items()}
    met = True
    for command, least in fastest.items():
        ratio = least / fastest[BASELINE]
        line = f"{command.name:<28} {least * 1000:6.0f} ms  {ratio:5.2f} x"
        if command.target is not None:
            met &= ratio <= command.target
            line += f"  {'met' if ratio <= command.target else 'MISSED'}: at most {command.target} x"
        print(line)
    print(f"fastest of {ROUNDS} rounds: {'every target is met' if met else 'a target is missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Commands that answer from a spec alone, as multiples of importing the libraries they parse with.

    python benchmarks/startup.py

Each command is a whole process, run in turn with the others; the medians are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 7
COMMANDS = {
    "import attrs, tyro": ("-c", "import attrs, tyro"),
    "mm hash": ("-m", "mm_config", "hash", "experiments/tiny.py"),
    "mm diff": ("-m", "mm_config", "diff", "experiments/tiny_high.py", "experiments/tiny_low.py"),
    "mm plan": ("-m", "mm_config", "plan", "experiments/tiny_high.py"),
    "--help": ("experiments/tiny_high.py", "--help"),
    "import torch": ("-c", "import torch"),
}


def main() -> None:
    """Prints a line per command."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    base = medians["import attrs, tyro"]
    for name, median in medians.items():
        print(f"{name:20} {median / base:5.2f} x")


if __name__ == "__main__":
    main()

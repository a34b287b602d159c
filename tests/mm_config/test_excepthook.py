"""Mistakes in an experiment file, made before its `main` is reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(body)
    command = [sys.executable, "mine.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_every_problem_is_a_line_with_the_place_that_made_it(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "from experiments import tiny_high\n"
        "from mm_config import replace\n"
        'SPEC = replace(tiny_high.SPEC, {"optim.lr": -1.0, "schedule.steps": "x"})\n',
    )
    where = f"{tmp_path / 'mine.py'}:3: "
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{where}spec.optim.lr: must be > 0, got -1.0",
        f"{where}spec.schedule.steps: expected int, got str 'x'",
    ]


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "import mm_config\n1 / 0\n")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr

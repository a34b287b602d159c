"""The demo whole: `python experiments/tiny.py` on a fresh runs folder, held to its published goals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.demo
def test_the_demo_reaches_its_goals(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "tiny.py", "--runs-dir", str(tmp_path / "runs")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    print(result["score"], result["seconds"], result["peak_gib"])
    assert result["score"]["colour"] >= 0.95
    assert result["score"]["direction"] >= 0.85
    assert result["score"]["shape"] >= 0.70
    assert result["peak_gib"] < 4
    assert len(result["videos"]) == 64

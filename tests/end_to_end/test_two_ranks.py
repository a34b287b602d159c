"""The demo's own training file under torchrun: two ranks give the losses of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
STEPS = 20


def losses(launcher: tuple[str, ...], runs: Path) -> list[float]:
    command = [*launcher, "experiments/tiny_high.py", "--spec.steps", str(STEPS), "--runs-dir", str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (metrics,) = runs.glob("tiny_high/*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


@pytest.mark.slow
def test_two_ranks_of_tiny_high_give_the_losses_of_one_process(tmp_path: Path) -> None:
    one = losses((sys.executable,), tmp_path / "one")
    two = losses(TORCHRUN, tmp_path / "two")
    assert len(one) == STEPS
    assert one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-5)

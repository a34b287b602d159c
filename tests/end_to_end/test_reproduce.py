"""A stored run is found by eight digits of its hash and made again, bit by bit, on the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = {
    "--spec.steps": "4",
    "--spec.batch-size": "8",
    "--spec.data.dataset.clips-per-caption": "1",
    "--spec.model.hidden-size": "32",
    "--spec.model.num-attention-heads": "2",
    "--spec.model.ffn-dim": "32",
    "--spec.model.num-layers": "1",
    "--spec.runtime.device": "cpu",
}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *argv]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_stored_training_is_found_by_eight_digits_and_reproduced_to_the_last_bit(tmp_path: Path) -> None:
    flags = [word for pair in SMALL.items() for word in pair]
    made = run("experiments/tiny_high.py", *flags, "--runs-dir", str(tmp_path))
    assert made.returncode == 0, made.stderr
    stored = Path(made.stdout.splitlines()[-1]).parent
    digits = json.loads((stored / "status.json").read_text())["spec_hash"][:8]

    done = run("-m", "mm_config", "reproduce", digits, "--runs-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    verdict, old, new = done.stdout.splitlines()[-3:]
    assert verdict == "identical: 4 steps (loss, grad_norm, lr), 1 checkpoint (step 4)"
    assert old.split() == ["stored", str(stored)]
    assert Path(new.split()[1], "checkpoints", "step-00000004", "manifest.json").is_file()

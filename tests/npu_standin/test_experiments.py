"""The demo's own experiment files, started as users start them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.npu_standin import build
from tests.npu_standin.parity import TOLERANCE

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
STEPS = 20
PROMPTS = ("a red circle moving right", "a blue square moving up")
SHORT = {
    "high_noise.spec.schedule.steps": STEPS,
    "low_noise.spec.schedule.steps": 4,
    "low_noise.spec.start_from.spec.schedule.steps": STEPS,
    "sampler.steps": 8,
    "samples.seeds": 1001,
}
"""Of experiments/tiny.py; the high-noise expert is the one that two ranks trained."""


def start(device: str, runs: Path, *command: str) -> None:
    """Runs an experiment file; on the CPU without the stand-in, as if torch_npu were not there."""
    environment = build.plain(os.environ) if device == "cpu" else dict(os.environ)
    options = ("--spec.runtime.device", device, "--runs-dir", str(runs))
    done = subprocess.run(
        [sys.executable, *command, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs by device, with tiny_high's training on two ranks."""
    root = tmp_path_factory.mktemp("experiments")
    found = {"npu": root / "npu", "cpu": root / "cpu"}
    for device, folder in found.items():
        start(device, folder, *TORCHRUN, "experiments/tiny_high.py", "--spec.steps", str(STEPS))
        if device == "npu":
            # Clips are rendered by the CPU in any case; encoding them is each device's own work.
            shutil.copytree(folder / ".cache" / "datasets", found["cpu"] / ".cache" / "datasets")
    return found


def losses(runs: Path) -> list[float]:
    (metrics,) = runs.glob("tiny_high/*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]


def videos(runs: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """What result.json says of each video, and its frames."""
    newest = max(runs.glob("tiny/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
    made: Sequence[dict[str, Any]] = json.loads(newest.read_text())["videos"]
    return [(video, frames_of(newest.parent / video["path"])) for video in made]


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_tiny_high_trains_on_two_ranks_with_the_losses_of_the_cpu(runs: dict[str, Path]) -> None:
    npu, cpu = losses(runs["npu"]), losses(runs["cpu"])
    assert len(npu) == STEPS and npu[-1] < npu[0]
    assert npu == pytest.approx(cpu, rel=TOLERANCE)


def test_tiny_generates_the_videos_of_the_cpu(runs: dict[str, Path]) -> None:
    flags = [part for name, value in SHORT.items() for part in (f"--spec.{name}", str(value))]
    command = ("experiments/tiny.py", *flags, "--spec.samples.prompts", *PROMPTS)
    start("npu", runs["npu"], *command)
    npu = videos(runs["npu"])
    # In the same folder, so that it finds the experts that were trained on the device.
    start("cpu", runs["npu"], *command)
    cpu = videos(runs["npu"])
    assert [one["prompt"] for one, _ in npu] == list(PROMPTS)
    for (ours, frames), (theirs, expected) in zip(npu, cpu, strict=True):
        assert ours["path"] != theirs["path"]
        assert frames.shape == expected.shape == (17, 64, 64, 3)
        difference = np.abs(frames.astype(int) - expected)
        # A difference of 1e-6 may round to another of 256 levels here and there.
        assert difference.max() <= 3 and difference.mean() <= 0.01

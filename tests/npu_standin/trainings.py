"""Small trainings, and how one on the device is compared with one on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from experiments import tiny_high
from mm_config import replace
from mm_config.specs.train import TrainSpec
from mm_models.weights.layouts import read_group
from tests.mm_train.conftest import SMALL
from tests.npu_standin.parity import TOLERANCE, assert_all_equal

STEPS = 4


def spec_of(
    name: str, device: str, changes: dict[str, Any] | None = None, like: TrainSpec = tiny_high.SPEC
) -> TrainSpec:
    """A few steps of an experiment with a smaller network, in which gradients are clipped."""
    wanted = {"name": name, "runtime.device": device, "schedule.steps": STEPS, "optim.max_grad_norm": 0.05}
    return replace(replace(like, {**SMALL, **wanted}), changes or {})


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """What a run wrote of each step."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def stored(folder: Path, *groups: str) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint: its weights and the optimizer's moments, or other groups."""
    return {
        group: {name: one.read() for name, one in read_group(folder, group).items()}
        for group in groups or ("model", "optimizer")
    }


def assert_equal_runs(
    actual: Path, expected: Path, *groups: str, steps: int = STEPS, tolerance: float = TOLERANCE
) -> None:
    """Equal losses and norms of every step, and equal weights and moments after the last.

    The tolerance is that of weights and moments.
    """
    pairs = list(zip(metrics(actual), metrics(expected), strict=True))
    assert len(pairs) == steps
    for ours, theirs in pairs:
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=TOLERANCE)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=10 * TOLERANCE)
    ours, theirs = (
        stored(folder / "checkpoints" / f"step-{steps:08d}", *groups) for folder in (actual, expected)
    )
    for group in theirs:
        assert_all_equal(ours[group], theirs[group], tolerance)

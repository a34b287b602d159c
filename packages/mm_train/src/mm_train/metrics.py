"""What a training reports of itself."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

LAST_STEPS = 50


@attrs.frozen
class Step:
    """An optimizer step that was done; also a line of metrics.jsonl."""

    step: int
    """Its number, from 1."""
    loss: float
    """Weighted mean over the global batch, before the update."""
    lr: float
    """Learning rate of the update."""
    grad_norm: float
    """Global norm of the gradients, before clipping."""
    samples_per_second: float
    """Samples of the global batch over the step's time."""
    data_wait_seconds: float
    """How long this rank waited for its batch; part of the step's time."""
    step_seconds: float
    """From asking for the batch to the updated weights."""


def final_loss(metrics_path: Path) -> float:
    """The mean loss of the last `LAST_STEPS` steps in metrics.jsonl, also of those before a resume."""
    lines = metrics_path.read_text("utf-8").splitlines()[-LAST_STEPS:]
    losses = [json.loads(line)["loss"] for line in lines]
    return sum(losses) / len(losses)

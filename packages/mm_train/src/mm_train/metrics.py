"""What a training reports of itself."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from mm_config.durable import read_bytes

LAST_STEPS = 50
MOST_BYTES = 2**30
"""Of a file of metrics."""


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


def final_loss(metrics_path: Path, steps: int) -> float | None:
    """The mean loss of the last `LAST_STEPS` of all steps in metrics.jsonl, also of those before a resume.

    A resume may have found the file damaged: then of those that are left of them; None where none is.
    """
    try:
        content = read_bytes(metrics_path, MOST_BYTES)
    except FileNotFoundError:
        return None
    logged = [json.loads(line) for line in content.splitlines()]
    losses = [line["loss"] for line in logged if line["step"] > steps - LAST_STEPS and "loss" in line]
    return sum(losses) / len(losses) if losses else None

"""What a training reports of itself."""

from __future__ import annotations

import json
from pathlib import Path

LAST_STEPS = 50


def final_loss(metrics_path: Path) -> float:
    """The mean loss of the last `LAST_STEPS` steps in metrics.jsonl, also of those before a resume."""
    lines = metrics_path.read_text("utf-8").splitlines()[-LAST_STEPS:]
    losses = [json.loads(line)["loss"] for line in lines]
    return sum(losses) / len(losses)

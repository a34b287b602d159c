"""What a training comes to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.runs import Run
from mm_train.states import best_of


@attrs.frozen
class TrainResult:
    """What a training left behind."""

    run_dir: Path
    """The run folder."""
    result_path: Path
    """Its result.json."""
    checkpoint: Path
    """The state after the last step."""
    best_checkpoint: Path | None
    """Of the states that are left, the one with the least loss on held-out clips; None where none has one."""
    steps: int
    """Optimizer steps."""
    loss: float | None
    """Mean of the last steps' losses; None where their lines were lost."""
    seconds: float
    """Time spent, in all processes that resumed each other."""
    peak_gib: float
    """Peak memory of this process's device, in GiB."""
    quarantined: int
    """Clips that could not be read."""
    adapter: Path | None = None
    """The folder with the trained adapters as diffusers writes them; None where the network was trained."""


def result_of(run: Run, content: Mapping[str, Any]) -> TrainResult:
    """What a finished run's result.json says."""
    return TrainResult(
        run_dir=run.path,
        result_path=run.result_path,
        checkpoint=run.path / content["checkpoint"],
        best_checkpoint=best_of(run.checkpoints_dir),
        steps=content["steps"],
        loss=content["loss"],
        seconds=content["seconds"],
        peak_gib=content["peak_gib"],
        quarantined=content["quarantined"],
        adapter=run.path / content["adapter"] if "adapter" in content else None,
    )

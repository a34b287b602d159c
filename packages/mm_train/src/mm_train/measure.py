"""What a run reports of itself."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

LAST_STEPS = 50


def peak_gib(device: torch.device) -> float:
    """The most memory in use so far, in GiB: of the accelerator, or of this process on a CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 2**30
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return largest / (2**30 if sys.platform == "darwin" else 2**20)


def device_names(device: torch.device) -> tuple[str, ...]:
    """Names of the accelerators of this machine, for the provenance; none on a CPU."""
    if device.type == "cpu":
        return ()
    module = torch.get_device_module(device)
    return tuple(module.get_device_name(index) for index in range(torch.accelerator.device_count()))


def final_loss(metrics_path: Path) -> float:
    """The mean loss of the last `LAST_STEPS` steps in metrics.jsonl, also of those before a resume."""
    lines = metrics_path.read_text("utf-8").splitlines()[-LAST_STEPS:]
    losses = [json.loads(line)["loss"] for line in lines]
    return sum(losses) / len(losses)

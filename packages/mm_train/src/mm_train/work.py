"""Everything that the training loop works with."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from mm_config.runs import Run
from mm_config.specs import TrainSpec
from mm_data import Dataset, Plan
from mm_models.lora import Dropout
from mm_train.noise import NoiseLevels
from mm_train.ranks import Ranks
from mm_train.sources import Source


@attrs.frozen
class Training:
    """Everything that the loop works with."""

    spec: TrainSpec
    """What is trained."""
    run: Run
    """Where its state, metrics and result go."""
    ranks: Ranks
    """The processes that train it together."""
    device: torch.device
    """Where this process computes."""
    dataset: Dataset
    """The clips."""
    plan: Plan
    """Which of them each step trains on."""
    source: Source
    """How they are loaded and encoded."""
    levels: NoiseLevels
    """The noise levels that the expert is trained on."""
    network: nn.Module
    """Parallelized, on the device, with its weights."""
    optimizer: Optimizer
    """Over the network's trainable parameters."""
    base: str | None = None
    """The digest of the files of the network beside which adapters are trained; None elsewhere."""
    dropout: Dropout | None = None
    """What drops a share of the adapters' input; None for nothing."""

    @property
    def quarantine(self) -> Path:
        """The list of clips that can't be read."""
        return self.run.path / "quarantine.jsonl"

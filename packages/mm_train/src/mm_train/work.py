"""Everything that the training loop works with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from mm_config.running import AVERAGE
from mm_config.runs import Run
from mm_config.specs import TrainSpec
from mm_data import Dataset, Plan
from mm_models.lora import Dropout
from mm_models.ranks import Ranks
from mm_train.average import Average
from mm_train.clipping import Clipping
from mm_train.layout import Layout
from mm_train.ledger import Ledger
from mm_train.metrics import Sink
from mm_train.noise import NoiseLevels
from mm_train.offloading import Resting
from mm_train.sample_requests import Sampling
from mm_train.saving import Saving
from mm_train.sources import Source
from mm_train.states import Groups
from mm_train.timing import Clock, Totals


class Coming(Protocol):
    """What batches come from."""

    def waiting(self) -> list[Any]:
        """Items that are put together next and have arrived already."""
        ...


@attrs.frozen
class Training:
    """Everything that the loop works with."""

    spec: TrainSpec
    """What is trained."""
    run: Run
    """Where its state, metrics and result go."""
    ranks: Ranks
    """The processes that train it together."""
    layout: Layout
    """What each of them shares with which others."""
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
    clipping: Clipping
    """To which norm the gradients are clipped."""
    average: Average | None
    """Of the network's trainable parameters; None where none is kept."""
    saving: Saving
    """Writes its states."""
    sampling: Sampling | None = None
    """The videos that are made on the way; None for none."""
    dropout: Dropout | None = None
    """What drops a share of the adapters' input; None for nothing."""
    sinks: list[Sink] = attrs.field(factory=list)
    """Where lines of metrics go; none on ranks that don't write."""
    clock: Clock = attrs.field(
        default=attrs.Factory(lambda self: Clock(self.device), takes_self=True)  # type: ignore[attr-defined]
    )
    """Tells the time by part."""
    ledger: Ledger = attrs.Factory(lambda: Ledger(None, 0.0))
    """Adds up all time of the run."""
    totals: Totals = attrs.field(factory=Totals)
    """What this process has done."""
    encoders: Resting = attrs.Factory(lambda self: self.resting(), takes_self=True)
    """Those of the source, which may lie in the host's memory until they are awake."""

    def resting(self) -> Resting:
        """The encoders, which lie in the host's memory from now on where the spec asks for it."""
        return Resting(self.source.encoders if self.spec.runtime.offload_encoders else ())

    def more_groups(self) -> Groups:
        """What a checkpoint holds beside weights and moments."""
        average = {} if self.average is None else self.average.tensors()
        groups = {AVERAGE: average, "clipping": self.clipping.tensors()}
        return {name: tensors for name, tensors in groups.items() if tensors}

    @property
    def reads_at_once(self) -> bool:
        """Whether reading a number of the device keeps it from nothing: on a CPU, which computes at once."""
        return self.device.type == "cpu"

    @property
    def quarantine(self) -> Path:
        """The list of clips that can't be read."""
        return self.run.path / "quarantine.jsonl"

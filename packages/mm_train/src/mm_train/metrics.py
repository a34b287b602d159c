"""What a training reports of itself, step by step, and where the numbers go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from mm_config.durable import read_bytes
from mm_train.timing import STEP_PARTS, Lap

LAST_STEPS = 50
MOST_BYTES = 2**30
"""Of a file of metrics."""

Line = Mapping[str, Any]
"""Numbers, and mappings of them by name, beside `step`, which counts from 1. A line adds to its step."""
Scalars = Mapping[str, Tensor]
"""Numbers of a step by name, each a scalar on the device."""
Sink = Callable[[Line], object]
"""Where lines go: metrics.jsonl, TensorBoard, Weights & Biases."""


@attrs.define(eq=False)
class Reading:
    """Numbers of a step that are still on the device, or read."""

    scalars: Scalars
    """By name, each a scalar; empty once they are read."""
    lap: Lap
    """The step's time."""
    values: dict[str, float] = attrs.field(factory=dict)
    """The scalars, read."""
    seconds: dict[str, float] = attrs.field(factory=dict)
    """The step's time by part, with what was done between the steps before it."""

    @property
    def step_seconds(self) -> float:
        """From asking for the batch to the updated weights."""
        return sum(self.seconds.get(part, 0.0) for part in STEP_PARTS)


def read(readings: Iterable[Reading]) -> None:
    """Waits for the device and reads all numbers of some steps in one transfer."""
    unread = [one for one in readings if one.scalars]
    if not unread:
        return
    scalars = [scalar.float() for one in unread for scalar in one.scalars.values()]
    numbers = iter(torch.stack(scalars).tolist())
    for one in unread:
        one.values = {name: next(numbers) for name in one.scalars}
        one.seconds = one.lap.seconds()
        one.scalars = {}


@attrs.frozen(eq=False, repr=False)
class Step:
    """An optimizer step that was done; its numbers are those of its line in metrics.jsonl.

    On an accelerator the loss, the norm and the times are still there. Asking for one of them waits for the
    device, so that it has nothing to do until it is given the next step.
    """

    step: int
    """Its number, from 1."""
    lr: float
    """Learning rate of the update."""
    data_wait_seconds: float
    """How long this rank waited for its batch; part of the step's time."""
    samples: int
    """Of the global batch."""
    reading: Reading
    """What is read when it is asked for."""

    @property
    def loss(self) -> float:
        """Weighted mean over the global batch, before the update."""
        return self._read().values["loss"]

    @property
    def grad_norm(self) -> float:
        """Global norm of the gradients, before clipping."""
        return self._read().values["grad_norm"]

    @property
    def step_seconds(self) -> float:
        """From asking for the batch to the updated weights."""
        return self._read().step_seconds

    @property
    def samples_per_second(self) -> float:
        """Samples of the global batch over the step's time."""
        return self.samples / max(self.step_seconds, 1e-6)

    def _read(self) -> Reading:
        read([self.reading])
        return self.reading

    def __repr__(self) -> str:
        names = ("step", "loss", "lr", "grad_norm", "samples_per_second", "data_wait_seconds", "step_seconds")
        return f"Step({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def send(sinks: Iterable[Sink], line: Line) -> None:
    """Gives a line to all places where lines go; there are none on ranks that don't write."""
    for sink in sinks:
        sink(line)


def flat(line: Line, prefix: str = "") -> dict[str, float]:
    """The numbers of a line by name, those of mappings as `outer/inner`."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value
    return found


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

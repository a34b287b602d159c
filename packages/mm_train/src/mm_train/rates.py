"""What a step's time comes to: samples, tokens and FLOPs per second, memory, clocks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property

import attrs
import torch

from mm_config.planning import DEVICES, Clip, train_work
from mm_data import Batch
from mm_models import device, device_names, peak_gib
from mm_train.work import Training

_REPORTED = {
    "NVIDIA H200": "h200",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100 80GB PCIe": "a100-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-PCIE-40GB": "a100-40gb",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "Ascend910B2": "atlas-a2",
}
"""Devices whose peak `mm plan` knows, by the name that they give themselves; others have other peaks."""


_SHORTEST = 1e-6
"""Seconds of a step at least: events of a device are no finer."""


@attrs.frozen
class Amount:
    """What a step over all ranks counts."""

    samples: int
    """Clips."""
    tokens: int
    """Of all clips."""
    model_flops: int
    """Three forward passes of the network, attention counted in full; encoders are left out."""
    executed_flops: int
    """With what the backward pass computes again, without what frozen weights spare."""


class Rates:
    """Counts and times of a training's steps."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._amounts: dict[tuple[int, ...], Amount] = {}

    def amount(self, batch: Batch) -> Amount:
        """What a step on a batch counts; worked out once for each shape."""
        shape = batch.shape
        key = (shape.num_frames, shape.height, shape.width, batch.size)
        if key not in self._amounts:
            work = train_work(self._training.spec, self._training.ranks.world_size, Clip(*key))
            tokens = work.tokens * work.samples
            self._amounts[key] = Amount(work.samples, tokens, work.step_flops, work.executed_flops)
        return self._amounts[key]

    def of(self, amount: Amount, seconds: float) -> dict[str, float]:
        """Rates of a step; shares of the peak where it is known."""
        ranks = self._training.ranks.world_size
        seconds = max(seconds, _SHORTEST)
        found: dict[str, float] = {
            "samples_per_second": amount.samples / seconds,
            "tokens_per_second": amount.tokens / seconds,
            "tflops": amount.model_flops / seconds / ranks / 1e12,
        }
        if self.peak:
            found["mfu"] = amount.model_flops / seconds / ranks / self.peak
            found["hfu"] = amount.executed_flops / seconds / ranks / self.peak
        return found

    def of_the_device(self) -> dict[str, float]:
        """Memory, compiled graphs and the clock, as they are now; nobody waits for the device."""
        device = self._training.device
        found: dict[str, float] = {"peak_gib": peak_gib(device)}
        if device.type != "cpu":
            found["memory_gib"] = torch.accelerator.memory_allocated(device) / 2**30
        if "torch._dynamo" in sys.modules:
            found["graphs_compiled"] = _graphs_compiled()
        if self._clock is not None:
            found["clock_mhz"] = self._clock()
        return found

    @cached_property
    def peak(self) -> float | None:
        """FLOP/s of one device in the format of the computation; None where no datasheet is known."""
        names = device_names(self._training.device)
        if not names or names[0] not in _REPORTED:
            return None
        precision = self._training.spec.precision
        return DEVICES[_REPORTED[names[0]]].peak_flops(precision.compute, precision.allow_tf32)

    @cached_property
    def _clock(self) -> Callable[[], int] | None:
        return device.clock_of(self._training.device)


def _graphs_compiled() -> int:
    """Graphs that torch.compile has made in this process: more of them on the way are recompilations."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]

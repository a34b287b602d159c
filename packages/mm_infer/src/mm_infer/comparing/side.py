"""One of two generations that are compared: made as a run, with its times, latents and frames kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import attrs
from torch import Tensor, nn

from mm_config.npu import exported
from mm_config.options import RunOptions
from mm_config.specs import Expert, InferSpec
from mm_config.stored import read_json
from mm_infer.comparing.calibrating import Changes
from mm_infer.passes import Forward
from mm_infer.runner import make
from mm_infer.watching import Watch

STAGES = ("load", "encode", "denoise", "decode")
"""Stages that are compared; decoding includes writing the files."""


@attrs.frozen
class Step:
    """One denoising step."""

    sigma: float
    """The noise level that it began at."""
    expert: Expert
    """Who took it."""
    latents: list[Tensor] = attrs.field(factory=list)
    """`[C, T, H, W]` float32 on the CPU that it left, of each video in the order of the requests."""


@attrs.frozen(eq=False)
class Side:
    """What was made, and how fast."""

    spec: InferSpec
    """What was carried out."""
    run_dir: Path
    """The run."""
    steps: tuple[Step, ...]
    """All steps, from the first."""
    frames: tuple[Tensor, ...]
    """uint8 `[T, H, W, 3]` of each video, as they were decoded."""
    seconds_per_step: float
    """Mean over all steps of all batches; the very first counts at most as much as the slowest other one,
    since it waits for what is set up once."""
    stages: dict[str, float]
    """Seconds of each stage, over all videos."""


def make_side(spec: InferSpec, options: RunOptions, changes: Changes | None = None) -> Side:
    """Makes the videos of `options.requests` as a run, and measures the changes of its steps where asked.

    Raises:
        UserError: As `make`.
    """
    steps: list[Step] = []
    frames: list[Tensor] = []
    took: list[float] = []
    last = [0.0]

    def begin(forward: Forward, networks: Mapping[Expert, nn.Module]) -> Forward:
        last[0] = time.perf_counter()
        return forward if changes is None else changes.around(forward, networks)

    def on_step(step: int, sigma: float, expert: Expert, latents: Tensor) -> None:
        if step == len(steps):
            steps.append(Step(sigma, expert))
        # A copy on the CPU waits for the device.
        steps[step].latents.extend(latents.float().cpu().clone())
        now = time.perf_counter()
        took.append(now - last[0])
        last[0] = now

    with exported(spec):
        outcome = make(spec, options, watch=Watch(on_step=on_step, on_frames=frames.append, around=begin))
    timings = read_json(outcome.result_path)["timings"]
    if others := took[1:]:
        took[0] = min(took[0], max(others))
    return Side(
        spec,
        outcome.run_dir,
        tuple(steps),
        tuple(frames),
        sum(took) / len(took),
        {stage: float(timings[stage]) for stage in STAGES},
    )

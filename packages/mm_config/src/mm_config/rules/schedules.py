"""Rules on what happens at which step: learning rate, checkpoints, moving average, recordings, validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from mm_config.rules.wording import either, idle_problems, nearest_multiples, one_of, repeated_problems
from mm_config.schema.errors import Problem, prefixed
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.diffusion import Expert
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.optim import AdamWSpec, Decay, ScheduleSpec
from mm_config.specs.train import CheckpointSpec, TrainSpec

AIC_METRICS = ("PipeUtilization", "ArithmeticUtilization")


def schedule_problems(schedule: ScheduleSpec) -> Iterator[Problem]:
    """Each decay has its settings. A warm-up may be longer than the run: that is how a change is tried."""
    if schedule.decay is Decay.CONSTANT:
        yield from idle_problems(schedule, ["final_ratio"], "a decay other than constant")
    if schedule.warmup_steps == 0:
        yield from idle_problems(schedule, ["warmup_ratio"], "a warm-up (warmup_steps above 0)")
    if schedule.decay is not Decay.WSD:
        yield from idle_problems(schedule, ["decay_steps"], "decay = wsd")
    elif schedule.decay_steps is None:
        yield Problem("decay_steps", f"is missing, but decay is wsd; give 1 to {schedule.steps}")
    elif schedule.decay_steps > schedule.steps:
        yield Problem("decay_steps", f"is {schedule.decay_steps}, above steps {schedule.steps}")


def adamw_problems(optim: AdamWSpec) -> Iterator[Problem]:
    """Moments are whole or quantised to a byte."""
    if optim.state_bits not in (8, 32):
        yield Problem("state_bits", f"must be 8 or 32, got {optim.state_bits}")


def checkpoint_problems(checkpoint: CheckpointSpec) -> Iterator[Problem]:
    """What is kept for ever has been written."""
    kept, written = checkpoint.keep_every, checkpoint.every_steps
    if kept is not None and kept % written:
        legal = either(nearest_multiples(kept, written))
        yield Problem("keep_every", f"{kept} is no multiple of every_steps {written}; nearest: {legal}")


def window_problems(recording: ProfilerSpec | MemorySnapshotSpec) -> Iterator[Problem]:
    """A window holds a step, its ranks differ, and its folder lies inside the run folder."""
    if recording.end_step <= recording.start_step:
        yield Problem(
            "end_step",
            f"is {recording.end_step}, but start_step is {recording.start_step}; "
            f"at least {recording.start_step + 1}",
        )
    yield from repeated_problems("ranks", recording.ranks)
    folder = PurePosixPath(recording.folder)
    if folder.is_absolute() or ".." in folder.parts or not folder.parts:
        yield Problem("folder", f"must lie inside the run folder, got {recording.folder!r}")
    if isinstance(recording, ProfilerSpec) and recording.npu_aic_metrics not in AIC_METRICS:
        yield Problem("npu_aic_metrics", one_of(recording.npu_aic_metrics, AIC_METRICS))


def step_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """What a run of these steps would never come to; `path` is where the spec stands."""
    steps = spec.schedule.steps
    if spec.ema is not None and spec.ema.start_step >= steps:
        yield Problem("ema.start_step", f"is {spec.ema.start_step}, not below {path}.schedule.steps {steps}")
    for name, recording in (("profiler", spec.profiler), ("memory_snapshot", spec.memory_snapshot)):
        if recording is not None and recording.end_step > steps:
            yield Problem(f"{name}.end_step", f"is {recording.end_step}, above {path}.schedule.steps {steps}")
    yield from prefixed(_validation_problems(spec, path), "validation")


def _validation_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    validation, boundary = spec.validation, spec.diffusion.boundary
    if validation is None:
        return
    yield from repeated_problems("sigmas", validation.sigmas)
    if boundary is not None and spec.expert is not Expert.SINGLE:
        high = spec.expert is Expert.HIGH_NOISE
        if not any((sigma >= boundary) is high for sigma in validation.sigmas):
            yield Problem(
                "sigmas",
                f"holds none of the {spec.expert.value} expert's noise levels; give one "
                f"{'at or above' if high else 'below'} {path}.diffusion.boundary {boundary}",
            )
    if isinstance(spec.data.dataset, ShapesSpec):
        dataset = spec.data.dataset
        clips = len(dataset.captions) * dataset.clips_per_caption
        if not 1 <= validation.holdout * clips <= clips - 1:
            yield Problem(
                "holdout",
                f"{validation.holdout} of {clips} clips leaves none to validate or none to train on; from "
                f"{1 / clips:.3g} to {1 - 1 / clips:.3g}",
            )

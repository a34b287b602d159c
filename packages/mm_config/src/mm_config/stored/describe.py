"""What a spec does, in one or two sentences of plain words."""

from __future__ import annotations

import inspect

from mm_config.rules.wording import counted
from mm_config.schema.identity import spec_hash
from mm_config.schema.root import RootSpec
from mm_config.schema.types import class_of
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec, Weights
from mm_config.specs.train import TrainSpec
from mm_config.specs.weights import RandomWeights, ReleasedWeights, TrainedBy

_MAGNITUDES = ((12, " T"), (9, " B"), (6, " M"), (3, " K"))


def describe(spec: RootSpec) -> str:
    """What running the spec does; for kinds of other packages, what their class says of itself."""
    if isinstance(spec, TrainSpec):
        return _training(spec)
    if isinstance(spec, InferSpec):
        return _generation(spec)
    return " ".join((inspect.getdoc(class_of(spec)) or "").split("\n\n")[0].split())


def magnitude(count: int) -> str:
    """A count in three digits: `14.3 B`, `1.42 M`, `640`."""
    value = float(f"{count:.3g}")
    power, letter = next(((power, letter) for power, letter in _MAGNITUDES if value >= 10**power), (0, ""))
    return f"{value / 10**power:g}{letter}"


def weights_in_words(weights: Weights) -> str:
    """Where weights come from: `random weights`, `Wan-AI/Wan2.2-T2V-A14B-Diffusers (main)`."""
    if isinstance(weights, RandomWeights):
        return "random weights"
    if isinstance(weights, ReleasedWeights):
        folder = f", {weights.subfolder}" if weights.subfolder else ""
        return f"{weights.name} ({weights.revision}{folder})"
    if isinstance(weights, TrainedBy):
        label = f"{weights.spec.name}, " if weights.spec.name else ""
        return f"the outcome of another training ({label}spec {spec_hash(weights.spec)[:12]})"
    return _kind(weights)


def _training(spec: TrainSpec) -> str:
    adapters = "" if spec.lora is None else f"rank-{spec.lora.rank} adapters of "
    what = f"{adapters}{_expert(spec.expert, spec.diffusion)}{_network(spec.model)}"
    steps, batch = counted(spec.schedule.steps, "step"), counted(spec.data.batch_size, "clip")
    optimizer = f"{_kind(spec.optim)} at a peak learning rate of"
    start = f"starting from {weights_in_words(spec.start_from)}"
    return (
        f"Trains {what} on {_clips(spec)}. "
        f"{steps} of {batch} with {optimizer} {_number(spec.optim.lr)}, {start}."
    )


def _expert(expert: Expert, diffusion: FlowMatchingSpec) -> str:
    if expert is Expert.SINGLE:
        return ""
    levels, boundary = "", diffusion.boundary
    if boundary is not None:
        low, high = (0.0, boundary) if expert is Expert.LOW_NOISE else (boundary, 1.0)
        levels = f" (sigma {_number(low)} to {_number(high)})"
    return f"the {expert.value.replace('_', '-')} expert{levels} of "


def _network(model: ModelSpec) -> str:
    kind = _kind(model)
    article = "an" if kind[0] in "AEIOU" else "a"
    return f"{article} {kind} with {magnitude(model.parameter_count())} parameters"


def _clips(spec: TrainSpec) -> str:
    data = spec.data
    if data.buckets:
        return f"clips of {counted(len(data.buckets), 'size')} at {_number(data.fps)} fps"
    return f"{counted(data.num_frames, 'frame')} of {data.height}x{data.width} at {_number(data.fps)} fps"


def _generation(spec: InferSpec) -> str:
    prompts, seeds = len(spec.samples.prompts), len(spec.samples.seeds)
    videos = "videos"
    if prompts:
        videos = (
            f"{counted(prompts * seeds, 'video')} ({counted(prompts, 'prompt')}, {counted(seeds, 'seed')})"
        )
    experts, each, change = "", "", ""
    if spec.low_noise is not None:
        experts, each = "the high-noise and the low-noise expert of ", " each"
        change = "" if spec.boundary is None else f"; they change at sigma {_number(spec.boundary)}"
    return (
        f"Generates {videos} of {counted(spec.num_frames, 'frame')} of {spec.height}x{spec.width} "
        f"at {spec.fps} fps with {experts}{_network(spec.model)}{each}{change}. {_sampling(spec)}."
    )


def _sampling(spec: InferSpec) -> str:
    sampler = spec.sampler
    high, low = sampler.guidance_high_noise, sampler.guidance_low_noise
    guidance = f"guidance {_number(high)}"
    if spec.low_noise is not None and high != low:
        guidance = f"guidance {_number(high)} at high and {_number(low)} at low noise"
    elif high == 1:
        guidance = "no guidance"
    steps = f"{counted(sampler.steps, 'step')} of {sampler.solver.value}"
    return f"{steps}, shift {_number(sampler.shift)}, {guidance}"


def _kind(spec: object) -> str:
    """What its class calls itself, as `AdamW` or `WanTransformer`."""
    return class_of(spec).__name__.removesuffix("Spec")


def _number(number: float) -> str:
    return repr(number).removesuffix(".0")

"""What a run costs, from the spec alone: tokens, parameters, FLOPs, bytes, traffic, and time on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs

from mm_config.planning.costs import Flow, Memory, Work, collectives
from mm_config.planning.denoising import infer_work, left_out, sparse_steps
from mm_config.planning.devices import RESERVE, Device, Timing, device_named, timing
from mm_config.planning.encoders import encoder_parameters
from mm_config.planning.inference import infer_memory
from mm_config.planning.parameters import trainable_count
from mm_config.planning.residency import (
    chosen_residency,
    fastest_residency,
    gigabytes,
    is_automatic,
)
from mm_config.planning.suggestions import Suggestion, suggestions
from mm_config.planning.traffic import infer_traffic, train_traffic
from mm_config.planning.training import train_memory, train_work
from mm_config.rules.requested import first_step, spec_of
from mm_config.rules.requests import own_problems, strength_problems
from mm_config.schema.errors import Problem, UserError, prefixed
from mm_config.schema.evolve import leaves, replace
from mm_config.schema.types import is_spec, is_tuple
from mm_config.specs.data import Cache
from mm_config.specs.encoders import DctAutoencoderSpec, HashedTextEncoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.train import TrainSpec

_LARGEST_NUMBER = 2**64
"""Largest number of a spec: a seed's."""
_WITHOUT_WEIGHTS = (DctAutoencoderSpec, HashedTextEncoderSpec)


@attrs.frozen
class Plan:
    """The cost of a training step, or of a generated video."""

    world_size: int
    """Ranks of the run."""
    parameters: int
    """Parameters of one network."""
    trainable_parameters: int
    """Those that are trained, or the adapters' instead; 0 at inference."""
    work: Work
    """Operations and how long they take."""
    memory: Memory
    """Of one rank."""
    traffic: tuple[Flow, ...]
    """What a rank sends and receives."""
    notes: tuple[str, ...]
    """What is assumed and what is not counted."""
    device: Device | None = None
    """What the plan is held against."""
    efficiency: float | None = None
    """Model FLOPs per second as a share of the device's peak."""
    timing: Timing | None = None
    """Seconds of a step or a video on the device."""
    fits: bool | None = None
    """Whether each rank's memory is enough, less the reserve."""
    problems: tuple[str, ...] = ()
    """Why it does not fit."""
    suggestions: tuple[Suggestion, ...] = ()
    """The smallest changes with which it fits."""

    @property
    def trains(self) -> bool:
        """Whether it is a training's."""
        return "training" in self.memory.phases

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values; what needs a device is None without one."""
        work, memory, times = self.work, self.memory, self.timing
        return {
            "world_size": self.world_size,
            "device": self.device and self.device.name,
            "tokens": work.tokens,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "forward_flops": work.forward_flops,
            "flops_by_part": work.flops_by_part,
            "step_flops": work.step_flops,
            "executed_flops": work.executed_flops,
            "bytes_per_rank": memory.bytes,
            "total_bytes_per_rank": memory.total,
            "bytes_by_phase": memory.phases,
            "host_bytes_per_rank": memory.host,
            "activations_by_recompute": memory.activations_by_recompute,
            "traffic_bytes": {flow.name: flow.bytes for flow in self.traffic},
            "collectives": collectives(self.traffic),
            "fits": self.fits,
            "memory_bytes": self.device and self.device.memory_bytes,
            "usable_bytes": self.device and self.device.usable_bytes,
            "floor_seconds": times and times.floor,
            "kernel_seconds": times and times.kernels,
            "traffic_seconds": times and times.traffic,
            "hidden_seconds": times and times.hidden,
            "exposed_seconds": times and times.exposed,
            "seconds_at_efficiency": times and times.at_efficiency,
            "predicted_seconds": times and times.predicted,
            "efficiency": self.efficiency,
            "problems": list(self.problems),
            "suggestions": [suggestion.flags for suggestion in self.suggestions],
            "notes": list(self.notes),
        }


def plan(
    spec: Any,
    world_size: int = 1,
    device: str | None = None,
    efficiency: float | None = None,
    request: GenerationRequest | None = None,
) -> Plan:
    """The plan of a training or an inference spec; the formulas stand in `mm_config.planning`.

    Args:
        spec: A TrainSpec or an InferSpec that follows the rules.
        world_size: Ranks of the run.
        device: What to hold it against, one of `mm_config.planning.devices.NAMES`.
        efficiency: Model FLOPs per second as a share of the device's peak; the device's own by default.
        request: What an inference spec is asked for; the size that a given file has is not looked at.

    Raises:
        UserError: The spec is of neither class, a number in it is absurd, or there is no such device; or the
            spec can't make what is asked for.
    """
    _check_numbers(spec)
    begin, asked = 0, tuple[str, ...]()
    if request is not None and isinstance(spec, InferSpec):
        spec, begin = _asked_for(spec, request)
        asked = _request_notes(spec, request, begin)
    against = None if device is None else device_named(device, world_size)
    if against is not None and isinstance(spec, InferSpec) and is_automatic(spec.runtime.residency):
        chosen = fastest_residency(spec, against.usable_bytes)
        spec = replace(spec, "runtime.residency", chosen)
        there = f"of {gigabytes(against.usable_bytes)} that {against.name} has"
        asked = (*asked, chosen_residency(spec, there))
    if isinstance(spec, TrainSpec):
        trainable = trainable_count(spec.model, spec.frozen, spec.lora)
        work, traffic = train_work(spec, world_size), train_traffic(spec, world_size)
    elif isinstance(spec, InferSpec):
        trainable, work, traffic = 0, infer_work(spec, begin), infer_traffic(spec, begin)
    else:
        raise UserError(f"a plan needs a training or an inference spec, got {type(spec).__name__}")
    from_video = request is not None and request.strength is not None
    memory = partial(_memory, from_video=from_video)
    found = Plan(
        world_size=world_size,
        parameters=spec.model.parameter_count(),
        trainable_parameters=trainable,
        work=work,
        memory=memory(spec, world_size),
        traffic=traffic,
        notes=(*asked, *_notes(spec, begin)),
    )
    return found if against is None else _held_against(found, spec, against, efficiency, memory)


def _asked_for(spec: InferSpec, request: GenerationRequest) -> tuple[InferSpec, int]:
    """The spec of a request's video, and the step that it begins with."""
    if found := own_problems(request, spec):
        raise UserError(prefixed(found, "request"))
    made = spec_of(spec, request)
    if found := [*strength_problems(request, made)]:
        raise UserError(prefixed(found, "request"))
    return made, first_step(made, request)


def _request_notes(made: InferSpec, request: GenerationRequest, begin: int) -> tuple[str, ...]:
    size = f"counted for {made.num_frames} frames of {made.width}x{made.height}"
    steps = made.sampler.steps
    by = (
        ""
        if request.strength is None
        else f", of which strength {request.strength} takes the last {steps - begin}"
    )
    return (f"{size} in {steps} steps{by}",)


def _check_numbers(spec: Any) -> None:
    """Products of these numbers have to stay within what a float holds."""
    problems = [
        Problem(f"spec.{leaf.path}", f"{leaf.value!r} is beyond what a plan can count with")
        for leaf in (leaves(spec, by_hash=False) if is_spec(spec) else ())
        for number in (leaf.value if is_tuple(leaf.value) else (leaf.value,))
        if isinstance(number, int) and number > _LARGEST_NUMBER
    ]
    if problems:
        raise UserError(problems)


def _held_against(
    found: Plan,
    spec: TrainSpec | InferSpec,
    device: Device,
    efficiency: float | None,
    memory: Callable[[Any, int], Memory],
) -> Plan:
    published = device.train_efficiency if found.trains else device.infer_efficiency
    share = published if efficiency is None else efficiency
    fits = found.memory.total <= device.usable_bytes
    ways = () if fits else suggestions(spec, found.world_size, device.usable_bytes, memory)
    return attrs.evolve(
        found,
        device=device,
        efficiency=share,
        timing=timing(found.work, found.traffic, device, share),
        fits=fits,
        problems=() if fits else tuple(_why_not(found.memory, device, bool(ways))),
        suggestions=ways,
    )


def _why_not(memory: Memory, device: Device, ways: bool) -> list[str]:
    largest = max(memory.bytes, key=lambda name: memory.bytes[name])
    needed = (
        f"each rank needs {memory.total / 1e9:.1f} GB while {memory.fullest}, {device.name} has "
        f"{device.usable_bytes / 1e9:.1f} GB of {device.memory_bytes / 1e9:.0f} GB beside the reserve of "
        f"{RESERVE:.0%}; the largest part is {largest}, {memory.bytes[largest] / 1e9:.1f} GB"
    )
    return [needed] if ways else [needed, "no few changes of how it is computed make it fit"]


def _memory(spec: TrainSpec | InferSpec, world_size: int, from_video: bool) -> Memory:
    return train_memory(spec, world_size) if isinstance(spec, TrainSpec) else infer_memory(spec, from_video)


def _notes(spec: TrainSpec | InferSpec, begin: int) -> tuple[str, ...]:
    """Sentences, those that matter for this spec only."""
    own = _train_notes(spec) if isinstance(spec, TrainSpec) else _infer_notes(spec, begin)
    return (*own, *_encoder_notes(spec))


def _train_notes(spec: TrainSpec) -> Iterator[str]:
    yield "activations: 20 widths and 2 feed-forward widths per token and block, norms fused"
    if spec.parallel.tensor > 1:
        yield "tensor parallelism is counted for weights and traffic, not for activations"
    if spec.recompute.mode is not Recompute.NONE:
        yield "recomputation counts for patterns that match whole blocks"
    if spec.data.buckets:
        yield "counted for the largest bucket"
    if spec.lora is not None:
        yield "low-rank adapters' own operations are not counted"
    if spec.data.precomputed is None and spec.data.cache is Cache.NONE:
        yield "encoding's operations are not counted, and all of a rank's clips are encoded at once"


def _infer_notes(spec: InferSpec, begin: int) -> Iterator[str]:
    yield "activations: at most what one block keeps for a backward pass"
    yield "encoding's and decoding's operations are not counted"
    if spec.after_decode:
        size = (spec.num_frames, spec.height, spec.width, spec.fps)
        for stage in spec.after_decode:
            size = stage.size_after(*size)
        frames, height, width, fps = size
        yield f"stages in the host's memory make {frames} frames of {width}x{height} at {fps} fps of it"
    if spec.sparse_attention is not None:
        unseen = left_out(spec, begin)
        share = unseen / (infer_work(spec, begin).step_flops + unseen)
        steps = f"{len(sparse_steps(spec, begin))} of {spec.sampler.steps - begin} steps"
        yield f"sparse attention leaves out {share:.1%} of the FLOPs, in {steps}"
    if spec.feature_cache is not None and spec.feature_cache.skipped is None:
        yield "every step is counted whole; which ones the feature cache skips is not known yet"
    if any(not lora.merge for lora in spec.loras):
        yield "adapters beside the weights are not counted"


def _encoder_notes(spec: TrainSpec | InferSpec) -> Iterator[str]:
    found: dict[str, Any] = {
        "text encoder": spec.text_encoder,
        "image encoder": spec.image_encoder,
        "autoencoder": spec.autoencoder,
    }
    for name, encoder in found.items():
        known = encoder is None or isinstance(encoder, _WITHOUT_WEIGHTS) or encoder_parameters(encoder)
        if not known:
            yield f"the {name}'s weights are not counted: {type(encoder).__name__} has no parameter_count()"

"""Opens a generation: what can be known of it before anything is loaded, asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import nn

import mm_models
from mm_config import rules
from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.running import resolve_weights
from mm_config.schema import Problem, UserError, concerning, expect, gathering
from mm_config.specs import (
    Expert,
    GenerationRequest,
    InferSpec,
    RandomWeights,
    ResidencySpec,
    TrainedBy,
    Weights,
)
from mm_infer.adapters import ReadAdapter, adapter_fields, read_fields
from mm_infer.carried_out import CARRIED_OUT, request_refusals
from mm_infer.layout import ALONE, Layout
from mm_infer.requests import check_requests
from mm_infer.residency import settled
from mm_infer.samplers import sigmas
from mm_infer.stages import require_stages
from mm_models import (
    SparseAttention,
    Use,
    check_said,
    check_weights,
    device,
    free_bytes,
    named_otherwise,
    require_releases,
    require_stream,
    torch_dtype,
    with_sparse_attention,
)
from mm_models.ops import Ops, approximated, choose

PATH_OF = {
    Expert.HIGH_NOISE: "spec.high_noise",
    Expert.LOW_NOISE: "spec.low_noise",
    Expert.SINGLE: "spec.high_noise",
}
"""The field that says where an expert's weights come from."""


UNHEARD = {
    "resume": "loading starts no run, so there is none to resume",
    "if_needed": "loading starts no run, so none can be saved",
    "stop_after": "loading starts no run, so there are no steps",
    "requests": "requests are given to the call",
    "threads": "a pipeline computes on the threads that the process has: torch.set_num_threads sets them",
}
"""Options that have no effect on loading, and why."""


@attrs.frozen(eq=False)
class Generation:
    """A spec that can be carried out here, and all that was asked for it; no network is loaded."""

    spec: InferSpec
    """What is carried out."""
    options: RunOptions
    """Where runs and locations are looked up."""
    device: torch.device
    """Where everything is computed; the current one."""
    dtype: torch.dtype
    """Of the networks' weights and computations."""
    ops: Ops
    """The forms of operations that the networks get."""
    network: nn.Module
    """An expert on meta, which weights and adapters were held against."""
    weights: Mapping[Expert, Path | RandomWeights]
    """Where each expert's weights lie, or the seed that draws them; those to be trained are missing."""
    adapters: tuple[ReadAdapter, ...]
    """What is added to the experts, in the order of the spec; those to be trained are missing."""
    layout: Layout = ALONE
    """The ranks that make the videos."""
    residency: ResidencySpec | None = None
    """Where experts and encoders are while they don't work, never `auto`; None before it is settled."""
    sparse: SparseAttention | None = None
    """The self-attention among the operations, where it is sparse."""


def options_of_loading(options: RunOptions | None) -> RunOptions:
    """The options that a pipeline is loaded with; without any, those of `mm generate`.

    Raises:
        TypeError: They are of another type.
        UserError: One says something that only a run could heed.
    """
    if options is None:
        return RunOptions()
    expect("options", options, RunOptions)
    _raise(list(options.unheard(UNHEARD)))
    return options


def open_generation(
    spec: InferSpec,
    options: RunOptions,
    requests: Sequence[GenerationRequest] | None = None,
    layout: Layout = ALONE,
) -> Generation:
    """Checks a spec and finds all that it names, but for weights and adapters that it allows to be trained.

    Args:
        spec: The spec.
        options: Where runs and locations are looked up.
        requests: What is going to be made; None where it is not known yet.
        layout: The ranks that make it.

    Raises:
        UserError: The spec breaks a rule or asks for what generation can't do; or its sampler's table, its
            device or the requests can't be used; or weights, releases or adapters are nowhere or don't fit
            their network. Each of the three is reported whole.
    """
    rules.check(spec)
    _raise([*CARRIED_OUT.refusals(spec), *request_refusals(requests or ())])
    problems: list[Problem] = []
    with gathering(problems):
        sigmas(spec.sampler)
    with gathering(problems):
        require_stages(spec)
    with gathering(problems):
        place, dtype = device.pick(spec.runtime.device), torch_dtype(spec.dtype)
        exact = choose(place, spec.runtime.attention, dtype)
        ops = approximated(exact, place, spec.approximate_attention, dtype)
        mm_models.require_quantization(spec.quantization, place, dtype)
        rules.check_kernels(spec, place.type)
        ops, sparse = _with_sparse_attention(ops, spec, place)
    if requests is not None:
        with gathering(problems):
            check_requests(spec, requests)
    _raise(problems)
    network = mm_models.build(spec.model, device="meta", ops=ops, float32_residual=spec.float32_residual)
    for name in ("feature_cache", "sparse_attention"):
        if getattr(spec, name) is not None:
            with gathering(problems):
                require_stream(network, f"spec.{name}")
    weights: dict[Expert, Path | RandomWeights] = {}
    for expert, source in expert_weights(spec).items():
        if not _may_be_trained(spec, source):
            with gathering(problems):
                weights[expert] = _found(spec, options, expert, network)
    with gathering(problems):
        named = [field for field in adapter_fields(spec) if not field.buildable]
        adapters = read_fields(named, spec, options)
    with gathering(problems):
        require_releases(encoders_of(spec), options.locations)
    _raise(problems)
    for idle in rules.idle_settings(spec, requests):
        say(str(idle))
    return Generation(spec, options, place, dtype, ops, network, weights, adapters, layout, sparse=sparse)


def _with_sparse_attention(
    ops: Ops, spec: InferSpec, place: torch.device
) -> tuple[Ops, SparseAttention | None]:
    """The operations with sparse attention among them, where the spec asks for it."""
    if spec.sparse_attention is None:
        return ops, None
    wanted, compiled = spec.runtime.attention, spec.runtime.compile.enabled
    return with_sparse_attention(ops, spec.sparse_attention, spec.model, place, wanted, compiled=compiled)


def with_residency(generation: Generation) -> Generation:
    """A generation that says where its experts and encoders are while they don't work.

    Raises:
        UserError: It does not fit into the memory that is free on its device.
    """
    if generation.residency is not None:
        return generation
    place, layout = generation.device, generation.layout
    free = layout.free_bytes if layout.ranks.world_size > 1 else free_bytes(place)
    return attrs.evolve(generation, residency=settled(generation.spec, place, free))


def train_missing(generation: Generation) -> Generation:
    """The same with all weights and adapters: those that no finished run has made are trained.

    Raises:
        UserError: A training failed, or what it made doesn't fit; no other is started after it.
    """
    spec, options, network = generation.spec, generation.options, generation.network
    weights = {
        expert: generation.weights.get(expert) or _found(spec, options, expert, network)
        for expert in expert_weights(spec)
    }
    fields = adapter_fields(spec)
    trained = read_fields([field for field in fields if field.buildable], spec, options)
    read = {one.field.path: one for one in (*generation.adapters, *trained)}
    return attrs.evolve(generation, weights=weights, adapters=tuple(read[field.path] for field in fields))


def expert_weights(spec: InferSpec) -> dict[Expert, Weights]:
    """Where each expert's weights come from: two experts if the spec has a boundary, else one network."""
    if spec.boundary is None:
        return {Expert.SINGLE: spec.high_noise}
    assert spec.low_noise is not None, "rules.check asks for low_noise where there is a boundary"
    return {Expert.HIGH_NOISE: spec.high_noise, Expert.LOW_NOISE: spec.low_noise}


def _may_be_trained(spec: InferSpec, weights: Weights) -> bool:
    return spec.runtime.build_missing and isinstance(weights, TrainedBy)


def _found(spec: InferSpec, options: RunOptions, expert: Expert, network: nn.Module) -> Path | RandomWeights:
    """An expert's weights, which are trained where they are missing and the spec allows it."""
    path = PATH_OF[expert]
    found = resolve_weights(expert_weights(spec)[expert], options, spec.runtime.build_missing, path)
    if isinstance(found, Path):
        with concerning(path):
            check_said(found, Use(expert, spec.boundary))
            check_weights(network, found)
        if note := named_otherwise(found, expert):
            say(f"{path}: {note}")
    return found


def encoders_of(spec: InferSpec) -> dict[str, object]:
    """The encoders of a spec by canonical path; None for one that is not there."""
    return {
        "spec.autoencoder": spec.autoencoder,
        "spec.text_encoder": spec.text_encoder,
        "spec.image_encoder": spec.image_encoder,
    }


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        raise UserError(problems)

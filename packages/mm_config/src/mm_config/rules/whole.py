"""The rules of a whole spec: its own, those of its parts, and those between ranks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mm_config.rules import (
    caching,
    clips,
    conditioning,
    data,
    decoding,
    encoders,
    modules,
    npu,
    npu_kernels,
    precision,
    ranks,
    requested,
    requests,
    residency,
    samples,
    sampling,
    schedules,
    sparse,
    weights,
)
from mm_config.schema.errors import Problem, SpecError, escaped, prefixed
from mm_config.schema.fields import spec_fields
from mm_config.schema.root import RootSpec
from mm_config.schema.types import class_of, expect_spec, is_spec, is_tuple
from mm_config.specs.data import CaptionSpec, DataSpec, PrecomputedSpec
from mm_config.specs.datasets import ManifestSpec, ShapesSpec
from mm_config.specs.diffusion import FlowMatchingSpec, SamplerSpec
from mm_config.specs.encoders import (
    ClipImageEncoderSpec,
    DctAutoencoderSpec,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
)
from mm_config.specs.infer import InferSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.npu import NpuAffinitySpec, NpuAllocatorSpec, NpuCoresSpec, NpuSpec
from mm_config.specs.optim import AdamWSpec, ScheduleSpec
from mm_config.specs.parallel import CompileSpec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.serving import InferRuntimeSpec, QuantizationSpec, SparseAttentionSpec
from mm_config.specs.train import CheckpointSpec, PrecisionSpec, TrainRuntimeSpec, TrainSpec
from mm_config.specs.weights import ReleasedWeights, SavedWeights

_OWN_RULES: dict[type[Any], tuple[Callable[[Any], Iterator[Problem]], ...]] = {
    AdamWSpec: (schedules.adamw_problems,),
    CaptionSpec: (data.caption_text_problems,),
    CheckpointSpec: (schedules.checkpoint_problems,),
    ClipImageEncoderSpec: (encoders.clip_encoder_problems,),
    CompileSpec: (precision.compile_problems,),
    DataSpec: (data.data_problems,),
    DctAutoencoderSpec: (encoders.dct_problems,),
    FlowMatchingSpec: (sampling.grid_problems,),
    InferRuntimeSpec: (precision.runtime_problems, residency.residency_problems, npu.npu_runtime_problems),
    ManifestSpec: (data.digest_problems,),
    MemorySnapshotSpec: (schedules.window_problems,),
    NpuAffinitySpec: (npu.affinity_problems,),
    NpuAllocatorSpec: (npu.allocator_problems,),
    NpuCoresSpec: (npu.cores_problems,),
    NpuSpec: (npu.npu_problems,),
    PrecisionSpec: (precision.precision_problems,),
    PrecomputedSpec: (data.precomputed_problems, data.digest_problems),
    ProfilerSpec: (schedules.window_problems,),
    QuantizationSpec: (modules.group_size_problems,),
    ReleasedWeights: (data.digest_problems, data.subfolder_problems),
    SavedWeights: (data.digest_problems,),
    SamplerSpec: (sampling.sampler_problems,),
    ScheduleSpec: (schedules.schedule_problems,),
    ShapesSpec: (data.colour_problems,),
    SparseAttentionSpec: (sparse.pattern_problems,),
    TrainRuntimeSpec: (precision.runtime_problems, npu.npu_runtime_problems),
    Umt5TextEncoderSpec: (encoders.umt5_problems,),
    WanAutoencoderSpec: (encoders.wan_autoencoder_problems,),
}
"""Rules of one nested spec on its own, wherever it stands."""


def problems(spec: Any, world_size: int | None = None) -> list[Problem]:
    """Everything that is wrong between the fields of a spec and of the specs inside it.

    Args:
        spec: Any spec; a spec class can add rules of its own by a `problems()` method.
        world_size: Ranks that the run is spread over; None leaves rules about ranks out.

    Returns:
        One problem per broken rule, with the canonical path (`spec.data.num_frames`), no two alike.

    Raises:
        TypeError: It is no spec.
    """
    expect_spec("spec", spec)
    found = list(_walk(spec, "spec"))
    if isinstance(spec, TrainSpec):
        found += prefixed(ranks.train_rank_problems(spec, world_size), "spec")
    if isinstance(spec, InferSpec):
        found += prefixed(ranks.generation_rank_problems(spec, world_size), "spec")
    return list(dict.fromkeys(found))


def check(spec: Any, world_size: int | None = None) -> None:
    """Raises SpecError with all problems, if there are any."""
    if found := problems(spec, world_size):
        raise SpecError(found)


def request_problems(request: GenerationRequest, spec: InferSpec) -> Iterator[Problem]:
    """What is wrong with a request to a spec that breaks no rule; paths start inside the request."""
    yield from conditioning.asked_problems(request, spec)
    own = requests.own_problems(request, spec)
    yield from own
    if own:
        return
    made = requested.spec_of(spec, request)
    yield from requests.strength_problems(request, made)
    if made is not spec:
        yield from (requests.problem_of(problem, request) for problem in problems(made))


def _walk(value: Any, path: str) -> Iterator[Problem]:
    if is_tuple(value):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}")
    if not is_spec(value):
        return
    if own_rules := getattr(value, "problems", None):
        yield from prefixed(own_rules(), path)
    for rule in _OWN_RULES.get(class_of(value), ()):
        yield from prefixed(rule(value), path)
    if isinstance(value, RootSpec):
        yield from prefixed(label_problems(value), path)
    if isinstance(value, TrainSpec):
        yield from prefixed(_train_problems(value, path), path)
    if isinstance(value, InferSpec):
        yield from prefixed(_infer_problems(value, path), path)
    for attribute in spec_fields(class_of(value)):
        yield from _walk(getattr(value, attribute.name), f"{path}.{attribute.name}")


def label_problems(spec: RootSpec) -> Iterator[Problem]:
    """A label that can't be a folder below the runs folder; an empty one takes another in its place."""
    if spec.name and (not re.fullmatch(r"[^\W_][^/\\]*", spec.name) or escaped(spec.name) != spec.name):
        form = "that starts with a letter or a digit and holds no control characters"
        yield Problem("name", f"must be a folder's name {form}, got {spec.name!r}")


def _train_problems(spec: TrainSpec, path: str) -> Iterator[Problem]:
    """Everything that does not depend on the number of ranks; paths start inside the spec.

    Args:
        spec: The training spec.
        path: Where it stands, for messages that name a second field.
    """
    yield from conditioning.conditioning_problems(spec, path)
    yield from encoders.text_problems(spec, path)
    yield from encoders.sharing_problems(spec)
    yield from prefixed(clips.clip_problems(spec.data, spec.model, spec.autoencoder), "data")
    yield from prefixed(conditioning.given_problems(spec.data, spec.model, spec.autoencoder), "data")
    yield from data.kept_latents_problems(spec.data)
    yield from sampling.expert_problems(spec.expert, spec.diffusion.boundary, path)
    yield from weights.start_problems(spec, path)
    yield from modules.trainable_problems(spec)
    yield from modules.sharding_problems(spec)
    yield from prefixed(ranks.head_problems(spec.parallel, spec.model, path), "parallel")
    yield from precision.attention_problems(spec, path)
    yield from npu_kernels.kernel_problems(spec, spec.runtime.device)
    yield from schedules.step_problems(spec, path)
    yield from samples.training_sample_problems(spec, path)


def _infer_problems(spec: InferSpec, path: str) -> Iterator[Problem]:
    """As `_train_problems`, for generation."""
    yield from conditioning.conditioning_problems(spec, path)
    yield from encoders.text_problems(spec, path)
    yield from clips.size_problems((spec.num_frames, spec.height, spec.width), spec.model, spec.autoencoder)
    yield from weights.used_problems(spec, path)
    yield from sampling.guidance_problems(spec, path)
    yield from sampling.sharing_problems(spec)
    yield from sparse.sparse_problems(spec, path)
    yield from decoding.decoding_problems(spec, path)
    yield from caching.cache_problems(spec, path)
    yield from modules.quantization_problems(spec)
    yield from residency.block_problems(spec, path)
    yield from prefixed(ranks.head_problems(spec.runtime.parallel, spec.model, path), "runtime.parallel")
    yield from precision.attention_problems(spec, path)
    yield from npu_kernels.kernel_problems(spec, spec.runtime.device)
    yield from precision.approximation_problems(spec, path)
    yield from conditioning.sample_problems(spec)

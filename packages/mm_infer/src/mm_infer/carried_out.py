"""What this package makes of an inference spec, and the refusal of all else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mm_config.rules import CarriedOut, beyond, guidance_by_step
from mm_config.schema import Problem
from mm_config.specs import ApproximateAttention, GenerationRequest, GuidanceMode, InferSpec, Residency
from mm_models import PART_FIELDS, determinism_problems, quantization_refusals, ring_problems

RUNNER = "generation"
REQUEST_FIELDS = (
    "negative_prompt_may_be_empty",
    "image",
    "last_image",
    "video",
    "strength",
    "num_frames",
    "height",
    "width",
    "resolution",
    "aspect_ratio",
    "steps",
    "solver",
    "shift",
    "guidance_high_noise",
    "guidance_low_noise",
)
"""Later fields of requests that are carried out."""


def request_refusals(requests: Sequence[GenerationRequest]) -> Iterator[Problem]:
    """What generation would have to ignore of requests: one problem for each field."""
    for index, request in enumerate(requests):
        yield from beyond(request, REQUEST_FIELDS, RUNNER, f"request {index}")


def _value_problems(spec: InferSpec) -> Iterator[Problem]:
    """Values of known fields that generation can't do yet."""
    runtime = spec.runtime
    yield from determinism_problems(
        runtime.deterministic, runtime.attention, runtime.compile, "runtime.compile"
    )
    yield from ring_problems(runtime.parallel.ring, runtime.attention)
    yield from _approximation_problems(spec)
    yield from _split_problems(spec)
    yield from quantization_refusals(spec.quantization)
    yield from _quantized_problems(spec)
    if spec.sparse_attention is not None and runtime.parallel.ring > 1:
        yield Problem(
            "runtime.parallel.ring",
            f"is {runtime.parallel.ring}, but ranks of a ring see keys block by block, and sparse_attention "
            "chooses among all; ulysses can",
        )
    apart = runtime.guidance is GuidanceMode.PARALLEL
    if spec.feature_cache is not None and apart and _is_in_part_guided(spec):
        yield Problem(
            "runtime.guidance",
            "is parallel, but in steps without guidance a feature cache needs what it saw of the prompts in "
            "those with guidance, on both ranks; batched or sequential",
        )
    if spec.feature_cache is not None and spec.feature_cache.skipped is None:
        yield Problem(
            "feature_cache.skipped",
            "is None: which steps skip the blocks is not known yet; `mm compare EXACT THIS --calibrate FILE` "
            "finds them, EXACT being the same spec without a cache",
        )


def _is_in_part_guided(spec: InferSpec) -> bool:
    """Whether an expert has guidance in some of its steps alone."""
    return len({(expert, guidance != 1) for expert, guidance in guidance_by_step(spec)}) > len(
        {expert for expert, _ in guidance_by_step(spec)}
    )


def _approximation_problems(spec: InferSpec) -> Iterator[Problem]:
    """What attention that is not exact can't be combined with."""
    if spec.approximate_attention is None:
        return
    name = spec.approximate_attention.value
    if spec.runtime.parallel.ring > 1:
        message = f"is {name}, which gives no log-sum-exp, by which a ring merges blocks of keys"
        yield Problem("approximate_attention", f"{message}; None, or runtime.parallel.ring 1")
    if spec.runtime.parallel.ulysses > 1 and spec.approximate_attention is ApproximateAttention.SAGE:
        message = (
            "is sage, which rounds by blocks of 128 tokens, and ranks that share tokens cut them elsewhere"
        )
        yield Problem("approximate_attention", f"{message}; None, or runtime.parallel.ulysses 1")
    if spec.sparse_attention is not None:
        message = f"is {name}, which can't be sparse yet; leave it or sparse_attention None"
        yield Problem("approximate_attention", message)


def _split_problems(spec: InferSpec) -> Iterator[Problem]:
    """What can't be put beside weights of which a rank has only a part."""
    parallel = spec.runtime.parallel
    if parallel.tensor == 1 and not parallel.fsdp:
        return
    why = f"tensor {parallel.tensor}" if parallel.tensor > 1 else "fsdp true"
    for index, lora in enumerate(spec.loras):
        if not lora.merge:
            message = f"is false, but with runtime.parallel.{why} no rank has a whole layer to be beside"
            yield Problem(f"loras.{index}.merge", f"{message}; true adds it to their weights")


def _quantized_problems(spec: InferSpec) -> Iterator[Problem]:
    """What can't be done with matrices of few bits."""
    if spec.quantization is None:
        return
    runtime = spec.runtime
    if runtime.parallel.tensor > 1 or runtime.parallel.fsdp:
        why = "tensor" if runtime.parallel.tensor > 1 else "fsdp"
        yield Problem("quantization", f"can't be shared over ranks by runtime.parallel.{why} yet")
    if runtime.residency.experts is not Residency.RESIDENT:
        where = runtime.residency.experts.value
        yield Problem("quantization", f"can't be carried out with runtime.residency.experts {where} yet")
    for index, lora in enumerate(spec.loras):
        if not lora.merge:
            message = "is false, but nothing is put beside quantised weights"
            yield Problem(f"loras.{index}.merge", f"{message}; true adds it before they are quantised")


CARRIED_OUT = CarriedOut(
    runner=RUNNER,
    fields=PART_FIELDS
    | {
        "high_noise.average",
        "high_noise.digest",
        "low_noise.average",
        "low_noise.digest",
        "negative_prompt",
        "float32_residual",
        "samples.images",
        "samples.last_images",
        "samples.wanted",
        "requests_may_set",
        "feature_cache",
        "quantization",
        "sparse_attention",
        "after_decode",
        "approximate_attention",
        "image_fit",
        "image_background",
        "distilled",
        "loras",
        "sampler.timesteps",
        "sampler.noise",
        "sampler.guidance_interval",
        "sampler.guidance_rescale",
        "runtime.compile",
        "runtime.guidance",
        "runtime.residency",
        "runtime.preview_every",
        "runtime.compile_autoencoder",
        "runtime.parallel.autoencoder",
        "runtime.parallel.data",
        "runtime.parallel.fsdp",
        "runtime.parallel.ring",
        "runtime.parallel.tensor",
        "runtime.parallel.timeout_seconds",
        "runtime.parallel.ulysses",
    },
    problems=_value_problems,
)

"""The memory of ranks that generate a video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod

import attrs

from mm_config.planning.costs import Memory, ceil_div, infer_layout
from mm_config.planning.denoising import passes_by_step, skipped_steps
from mm_config.planning.encoders import (
    BYTES,
    autoencoder_working_bytes,
    encoders,
    umt5_block_parameters,
)
from mm_config.planning.parameters import block_count, float32_count, quantized_count, quantized_rows
from mm_config.rules.residency import waiting_blocks
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import Conditioning
from mm_config.specs.serving import GuidanceMode, QuantFormat, Residency, ResidencySpec

_BITS = {
    QuantFormat.FP8: 8.0,
    QuantFormat.INT8: 8.0,
    QuantFormat.NF4: 4.0,
    # Microscaling formats add a scale of 8 bits to 32 values, NVFP4 to 16.
    QuantFormat.MXFP8: 8.25,
    QuantFormat.MXFP6: 6.25,
    QuantFormat.MXFP4: 4.25,
    QuantFormat.NVFP4: 4.5,
}
_SCALED_ROWS = (QuantFormat.FP8, QuantFormat.INT8, QuantFormat.NF4)
"""Formats that fix no group of their own."""
_SCALE_BITS = 32
"""Of each group's scale, where the spec sets the group's size, and of each row's otherwise."""
_BLOCKS_IN_FLIGHT = 2
"""Whole blocks on a rank where ranks share the weights: the one at work and the next."""
_WIDE_STREAMS = 2
"""Residual streams among what a pass holds at most: the block's input, and what attention made of it."""
_LATENTS_HELD = 5
"""The noise, the latents, and at most three predictions or latents of steps before, which solvers look at."""
ITEMS = (
    "parameters",
    "gathered_weights",
    "activations",
    "text_encoder",
    "image_encoder",
    "autoencoder",
    "batch",
)
"""What the memory of a generating rank is told apart into, in this order; 0 where there is none."""


@attrs.frozen
class _Expert:
    """Bytes of one expert on one rank."""

    whole: int
    """Its share of all parameters."""
    blocks: int
    """Its share of those of all blocks."""
    block: int
    """One block, gathered."""


def infer_memory(spec: InferSpec, from_video: bool = False) -> Memory:
    """Each rank's memory while prompts and given frames are encoded, while the network denoises, and while it
    decodes.

    Resident experts and encoders are on the device in each phase, others only while they work, one at a time.
    The network holds one block's values for all videos of a batch, twice with batched guidance; videos are
    decoded one after the other. Stages after decoding work in the host's memory. What `auto` leaves to the
    plan counts as resident.
    """
    runtime, residency = spec.runtime, spec.runtime.residency
    on_cpu = runtime.device == "cpu"
    experts = 1 if spec.low_noise is None else 2
    expert = _expert(spec)
    on_device = {
        Residency.RESIDENT: experts * expert.whole,
        Residency.SWAP: expert.whole,
        Residency.LAYERWISE: _layerwise(spec, expert),
        Residency.AUTO: experts * expert.whole,
    }[residency.experts]
    stays = residency.experts in (Residency.RESIDENT, Residency.AUTO)
    waiting = {"parameters": on_device if stays else 0}
    weights = {
        encoder.name: encoder.bytes
        for encoder in encoders(spec.text_encoder, spec.image_encoder, spec.autoencoder)
    }
    always = weights if residency.encoders in (Residency.RESIDENT, Residency.AUTO) else {}
    cells = prod(spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width))
    latents = cells * spec.autoencoder.latent_channels
    features = spec.text_encoder.max_tokens * spec.text_encoder.text_dim
    branches = 2 if max(passes_by_step(spec)) == 2 and runtime.guidance is GuidanceMode.BATCHED else 1
    in_pass = cells * (spec.model.in_channels + spec.model.out_channels) + features
    batch = 4 * runtime.batch_size * (_LATENTS_HELD * latents + in_pass * branches)
    stages = _encoding(spec, weights, from_video)
    fullest = {**stages[-1], **always} if always else max(stages, key=lambda stage: sum(stage.values()))
    phases = {
        "encoding": {**waiting, **fullest},
        "denoising": {
            "parameters": on_device,
            "gathered_weights": _BLOCKS_IN_FLIGHT * expert.block if runtime.parallel.fsdp else 0,
            "activations": _activations(spec, branches) + _kept_features(spec),
            **always,
            "batch": batch,
        },
        "decoding": {
            **waiting,
            "activations": _decoding_bytes(spec) + (_finishing_bytes(spec) if on_cpu else 0),
            **(always or {"autoencoder": weights["autoencoder"]}),
            "batch": 4 * runtime.batch_size * latents,
        },
    }
    waits = residency.pin_memory and not on_cpu  # Else it waits in its files.
    host = {"parameters": experts * expert.whole if waits and not stays else 0}
    host |= weights if waits and not always else {}
    host["after_decode"] = 0 if on_cpu else _finishing_bytes(spec)
    return Memory(
        phases={phase: {name: found.get(name, 0) for name in ITEMS} for phase, found in phases.items()},
        host={name: size for name, size in host.items() if size},
        activations_by_recompute={},
    )


def _encoding(spec: InferSpec, weights: Mapping[str, int], from_video: bool) -> list[dict[str, int]]:
    """What is on the device while texts are encoded and, where frames may be given, while these are."""
    features = spec.text_encoder.max_tokens * spec.text_encoder.text_dim
    count, pixels = spec.runtime.batch_size, 3 * spec.num_frames * spec.height * spec.width
    texts = {"text_encoder": _text_bytes(spec, weights["text_encoder"]), "batch": 2 * 4 * count * features}
    if spec.model.conditioning is Conditioning.TEXT and not from_video:
        return [texts]
    working = autoencoder_working_bytes(spec.autoencoder, spec.height, spec.width, decodes=False)
    frames = {"autoencoder": weights["autoencoder"], "activations": working, "batch": 4 * count * pixels}
    return [texts, {name: size for name, size in weights.items() if name == "image_encoder"}, frames]


def _decoding_bytes(spec: InferSpec) -> int:
    """What decoding a video holds beside weights and latents: a slice of time, where the autoencoder cuts."""
    working = autoencoder_working_bytes(spec.autoencoder, spec.height, spec.width, decodes=True)
    return working + 4 * 3 * _frames_at_once(spec) * spec.height * spec.width


def _finishing_bytes(spec: InferSpec) -> int:
    """What stages after decoding hold of the frames that are decoded at once: the largest that they make, in
    float32, twice, and in bytes, to which it is cut."""
    size, most = (_frames_at_once(spec), spec.height, spec.width, spec.fps), 0
    for stage in spec.after_decode:
        size = stage.size_after(*size)
        most = max(most, (4 + 4 + 1) * 3 * prod(size[:3]))
    return most


def _frames_at_once(spec: InferSpec) -> int:
    in_slices = isinstance(spec.autoencoder, WanAutoencoderSpec)
    return spec.autoencoder.temporal_stride if in_slices else spec.num_frames


def expert_bytes(spec: InferSpec) -> int:
    """One expert's weights on one rank."""
    return _expert(spec).whole


def outside_bytes(spec: InferSpec) -> int:
    """What layerwise residency brings to the device in each forward pass."""
    return len(waiting_blocks(spec.runtime.residency.share, spec.model.num_layers)) * _expert(spec).block


def _expert(spec: InferSpec) -> _Expert:
    layout, model = infer_layout(spec), spec.model
    whole = _weight_bytes(spec, model.parameter_count())
    blocks = whole * block_count(model) // model.parameter_count()
    ranks = layout.shard * layout.tensor
    block = ceil_div(blocks, model.num_layers * layout.tensor)
    return _Expert(ceil_div(whole, ranks), ceil_div(blocks, ranks), block)


def _weight_bytes(spec: InferSpec, parameters: int) -> int:
    """Bytes of an expert, whole; quantised matrices with their scales, and what stays float32 as such."""
    quantization, size = spec.quantization, BYTES[spec.dtype]
    wider = float32_count(spec.model, quantization) * (BYTES[Dtype.FLOAT32] - size)
    if quantization is None:
        return parameters * size + wider
    few = quantized_count(spec.model, quantization)
    bits = few * _BITS[quantization.format]
    if quantization.format in _SCALED_ROWS:
        group = quantization.group_size
        scales = quantized_rows(spec.model, quantization) if group is None else few // group
        bits += scales * _SCALE_BITS
    return (parameters - few) * size + wider + math.ceil(bits / 8)


def _layerwise(spec: InferSpec, expert: _Expert) -> int:
    """The ends and the blocks that stay, of the expert at work, that block and those on their way."""
    return expert.whole - _away(spec.runtime.residency, spec.model.num_layers) * expert.block


def _text_bytes(spec: InferSpec, whole: int) -> int:
    """The text encoder's weights while it works; layerwise, as of an expert."""
    text, residency = spec.text_encoder, spec.runtime.residency
    if residency.encoders is not Residency.LAYERWISE or not isinstance(text, Umt5TextEncoderSpec):
        return whole
    return whole - _away(residency, text.num_layers) * umt5_block_parameters(text) * BYTES[text.dtype]


def _away(residency: ResidencySpec, number: int) -> int:
    """Blocks that are not there while one works and others are on their way."""
    waiting = len(waiting_blocks(residency.share, number))
    return waiting - min(waiting, 1 + residency.prefetch)


def _activations(spec: InferSpec, branches: int) -> int:
    """A forward pass of a batch, and the tables that all of it shares."""
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    size, model = BYTES[spec.dtype], spec.model
    values = model.inference_values(latent_shape, spec.text_encoder.max_tokens) * size
    if spec.float32_residual:
        values += _WIDE_STREAMS * model.block_input_values(latent_shape) * (BYTES[Dtype.FLOAT32] - size)
    held = values * spec.runtime.batch_size * branches + 4 * model.position_values(latent_shape)
    widened = model.widened_values() * BYTES[Dtype.FLOAT32] if size < BYTES[Dtype.FLOAT32] else 0
    if spec.runtime.residency.experts is Residency.LAYERWISE:
        widened -= _expert(spec).block  # The block at work is not there yet.
    return max(ceil_div(held, infer_layout(spec).sequence), widened)


def _kept_features(spec: InferSpec) -> int:
    """What a feature cache keeps of the blocks' work, of each guidance branch, and the stream before them."""
    if not skipped_steps(spec):
        return 0
    assert spec.feature_cache is not None
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    size = BYTES[Dtype.FLOAT32 if spec.float32_residual else spec.dtype]
    stream = spec.model.block_input_values(latent_shape) * size * spec.runtime.batch_size
    return stream * (spec.feature_cache.derivatives + 2) * max(passes_by_step(spec))

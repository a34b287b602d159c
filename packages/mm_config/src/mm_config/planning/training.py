"""The work of a training step and the memory of its ranks."""

from __future__ import annotations

from math import prod

from mm_config.planning.costs import (
    STREAMS,
    Clip,
    Layout,
    Memory,
    Work,
    ceil_div,
    largest_clip,
    passes,
    train_layout,
)
from mm_config.planning.encoders import BYTES, autoencoder_working_bytes, encoders, image_tokens
from mm_config.planning.parameters import (
    block_matrices,
    matched_blocks,
    padded_values,
    trainable_count,
    units,
)
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import ATTENTION_CORES, ModelSpec
from mm_config.specs.optim import AdamWSpec, MuonSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.train import TrainSpec

_MASTER = 4
"""Bytes of a trained value, its gradient and its average: they are float32."""
_OWN_PREFETCH = 1
"""Units that FSDP2 gathers ahead by itself."""
ITEMS = (
    "parameters",
    "gradients",
    "optimizer",
    "ema",
    "accumulated_gradients",
    "gathered_weights",
    "activations",
    "text_encoder",
    "image_encoder",
    "autoencoder",
    "batch",
)
"""What the memory of a training rank is told apart into, in this order; 0 where there is none."""


def train_work(spec: TrainSpec, world_size: int, clip: Clip | None = None) -> Work:
    """A step: one forward pass and a backward pass of twice its operations for each clip of the batch.

    Recomputation repeats the forward pass of the blocks that it covers, in selective mode without
    attention's kernels. Low-rank adapters spare the products that give the frozen weights' gradients.

    Args:
        spec: The training.
        world_size: Its ranks.
        clip: The size and number of the step's clips; None takes the largest.
    """
    clip, model = clip or largest_clip(spec.data), spec.model
    latent_shape = spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width)
    images = image_tokens(spec.image_encoder, model)
    parts = model.flops_by_part(latent_shape, spec.text_encoder.max_tokens, images)
    attention = sum(parts.get(part, 0) for part in ATTENTION_CORES)
    products = sum(parts.values()) - attention
    again, batch = _recomputed_blocks(spec), clip.batch_size
    attention_again = again if spec.recompute.mode is Recompute.FULL else 0
    return Work(
        tokens=model.tokens(latent_shape),
        samples=batch,
        flops_by_part=parts,
        step_flops=3 * (products + attention) * batch,
        product_flops=_with_blocks_again(2 if spec.lora else 3, products, again, model) * batch,
        attention_forward_flops=_with_blocks_again(1, attention, attention_again, model) * batch,
        attention_backward_flops=2 * attention * batch,
        dtype=spec.precision.compute,
        allow_tf32=spec.precision.allow_tf32,
        ranks=world_size,
    )


def train_memory(spec: TrainSpec, world_size: int) -> Memory:
    """Each rank's memory while clips are encoded and while the network trains.

    States: float32 weights, gradients, moments and average of what is trained, and what is frozen beside
    adapters in the format of the computation; all of it shared by the ranks of a shard group. Whole on a
    rank are the units in flight (one at work, one that FSDP2 gathers ahead, those of the spec's
    prefetch), the root, one unit's gradients, and all gradients while micro-batches add up.
    """
    layout, clip = train_layout(spec, world_size), largest_clip(spec.data)
    share, micro, number = passes(spec, world_size)
    states, host = _states(spec, layout)
    weights = _encoder_bytes(spec, world_size)
    latents, pixels = _batch(spec, clip, share, micro)
    by_mode = {mode.value: _activations(spec, clip, micro, layout, mode)[0] for mode in Recompute}
    activations, kept_on_host = _activations(spec, clip, micro, layout, spec.recompute.mode)
    encoding = autoencoder_working_bytes(spec.autoencoder, clip.height, clip.width, decodes=False)
    encodes = spec.data.precomputed is None or not spec.data.precomputed.latents
    at_once = share * spec.runtime.encode_ahead
    cached = spec.data.cache is Cache.LATENTS
    waiting = cached or spec.runtime.offload_encoders
    if spec.runtime.offload_encoders:
        host |= weights
    training = {
        **states,
        "accumulated_gradients": _accumulated(spec, layout) if number > 1 else 0,
        "gathered_weights": _gathered(spec, layout),
        "activations": activations,
        **({} if waiting else weights),
        "batch": latents,
    }
    encoded = {
        # With cached features everything is encoded before the network takes any memory.
        **({} if cached else states),
        "activations": encoding * at_once if encodes else 0,
        **weights,
        "batch": pixels,
    }
    phases = {"training": training, "encoding": encoded} if weights else {"training": training}
    return Memory(
        phases={phase: {name: found.get(name, 0) for name in ITEMS} for phase, found in phases.items()},
        host={**host, **({"activations": kept_on_host} if kept_on_host else {})},
        activations_by_recompute=by_mode,
    )


def _with_blocks_again(times: int, flops: int, blocks: int, model: ModelSpec) -> int:
    """What is computed `times` in all layers and once more in some blocks; embeddings count as blocks."""
    return flops * times + flops * blocks // model.num_layers


def _recomputed_blocks(spec: TrainSpec) -> int:
    if spec.recompute.mode is Recompute.NONE:
        return 0
    return matched_blocks(spec.model, spec.recompute.modules)


def _states(spec: TrainSpec, layout: Layout) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes on the device and on the host of what lives as long as the run."""
    whole = units(spec.model, spec.fsdp).ignored
    ranks = layout.shard * layout.tensor
    parameters = spec.model.parameter_count()
    trained = trainable_count(spec.model, spec.frozen, spec.lora)
    # What is ignored by FSDP counts as trained, its frozen share is not told apart.
    trained_whole = 0 if spec.lora else min(whole, trained)
    per_rank = ceil_div(trained - trained_whole, ranks) + trained_whole
    frozen = parameters if spec.lora else parameters - trained
    frozen_whole = whole - trained_whole
    frozen_bytes = BYTES[spec.precision.compute] if spec.lora else _MASTER
    frozen_per_rank = ceil_div(frozen - frozen_whole, ranks) + frozen_whole
    states = {
        "parameters": _MASTER * per_rank + frozen_bytes * frozen_per_rank,
        "gradients": _MASTER * per_rank,
        "optimizer": _moments(spec, per_rank, trained),
    }
    average = {"ema": _MASTER * per_rank} if spec.ema is not None else {}
    offloaded_average = average if spec.ema is not None and spec.ema.offload else {}
    host = {**(states if spec.fsdp.offload else {}), **offloaded_average}
    return {name: size for name, size in {**states, **average}.items() if name not in host}, host


def _moments(spec: TrainSpec, per_rank: int, trained: int) -> int:
    if isinstance(spec.optim, MuonSpec) and trained:
        # Muon keeps one momentum of a matrix, adapters' too, AdamW two moments of everything else.
        matrices = 1.0 if spec.lora else padded_values(block_matrices(spec.model, spec.frozen), 1) / trained
        return round(per_rank * (_MASTER * matrices + 2 * _MASTER * (1 - matrices)))
    bits = spec.optim.state_bits if isinstance(spec.optim, AdamWSpec) else 32
    return 2 * per_rank * bits // 8


def _encoder_bytes(spec: TrainSpec, world_size: int) -> dict[str, int]:
    known = spec.data.precomputed
    needed = encoders(
        None if known is not None and known.text else spec.text_encoder,
        spec.image_encoder,
        None if known is not None and known.latents else spec.autoencoder,
    )
    ranks = world_size if spec.runtime.shard_encoders else 1
    return {
        encoder.name: ceil_div(encoder.bytes, 1 if encoder.name == "autoencoder" else ranks)
        for encoder in needed
    }


def _gathered(spec: TrainSpec, layout: Layout) -> int:
    """Whole weights in the format of the computation, and one unit's gradients before they are shared."""
    compute = BYTES[spec.precision.compute]
    if _is_unsharded(spec, layout):
        return 0
    fsdp = spec.fsdp
    found = units(spec.model, fsdp)
    ahead = max(_OWN_PREFETCH, fsdp.forward_prefetch, fsdp.backward_prefetch)
    weights = found.wrapped
    if fsdp.reshard_after_forward:
        weights = min((1 + ahead) * found.largest, found.wrapped)
        # Beside its shard a rank keeps a larger one from forward to backward.
        nearer = fsdp.reshard_size
        weights += ceil_div(found.wrapped, nearer) if nearer and nearer < layout.shard else 0
    unit = 0 if spec.lora else max(found.largest, found.root)
    gradients = unit * (compute + BYTES[spec.precision.reduce])
    return ceil_div(compute * (weights + found.root) + gradients, layout.tensor)


def _is_unsharded(spec: TrainSpec, layout: Layout) -> bool:
    """Whether the network computes with the weights as they are kept, without FSDP2's whole copies."""
    as_kept = BYTES[spec.precision.compute] == _MASTER or spec.lora is not None
    return layout.shard == 1 and as_kept


def _accumulated(spec: TrainSpec, layout: Layout) -> int:
    """Gradients of all weights, whole, until the last micro-batch sends them; others add up in place."""
    if _is_unsharded(spec, layout):
        return 0
    trained = trainable_count(spec.model, spec.frozen, spec.lora)
    return ceil_div(BYTES[spec.precision.reduce] * trained, layout.tensor)


def _activations(spec: TrainSpec, clip: Clip, micro: int, layout: Layout, mode: Recompute) -> tuple[int, int]:
    """Bytes that the network keeps for its backward pass, on the device and on the host.

    One block is at work. A recomputed block keeps its input and, in selective mode, self-attention's output
    with one float32 per token and head; one at a time is computed again. Tensor parallelism is not counted.
    """
    model, recompute = spec.model, spec.recompute
    latent_shape = spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width)
    size = BYTES[spec.precision.compute] * micro
    stream = model.block_input_values(latent_shape)
    wider = stream * (BYTES[Dtype.FLOAT32] * micro - size) if spec.precision.float32_residual else 0
    block = model.block_activation_values(latent_shape) * size + STREAMS * wider
    at_work = model.block_gradient_values(latent_shape) * size
    kept = stream * size + wider
    if mode is Recompute.NONE:
        return ceil_div(model.num_layers * block + at_work, layout.sequence), 0
    if mode is Recompute.SELECTIVE:
        kept += stream * size + model.tokens(latent_shape) * model.num_attention_heads * micro * 4
    again = matched_blocks(model, recompute.modules)
    one = at_work + (block if again else 0)
    others = (model.num_layers - again) * block
    if recompute.offload and mode is recompute.mode:
        return ceil_div(others + one + 2 * kept, layout.sequence), ceil_div(again * kept, layout.sequence)
    return ceil_div(others + one + again * kept, layout.sequence), 0


def _batch(spec: TrainSpec, clip: Clip, share: int, micro: int) -> tuple[int, int]:
    """Bytes of a step's latents and features, with a pass's noise, target and prediction; and of its pixels.

    What is given beside noise comes as further input channels. All are float32; decoded frames also wait as
    bytes.
    """
    model, at_once = spec.model, share * spec.runtime.encode_ahead
    cells = prod(spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width))
    text = spec.text_encoder.max_tokens * spec.text_encoder.text_dim
    image = 0
    if spec.image_encoder is not None:
        image = image_tokens(spec.image_encoder, model) * spec.image_encoder.image_dim
    features = cells * model.in_channels + text + image
    in_pass = cells * (model.in_channels + 3 * model.out_channels)
    latents = BYTES[Dtype.FLOAT32] * (features * at_once + in_pass * micro)
    pixels = 3 * clip.num_frames * clip.height * clip.width * (BYTES[Dtype.FLOAT32] + 1)
    return latents, latents + pixels * at_once

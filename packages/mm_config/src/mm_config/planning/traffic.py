"""Bytes that a rank moves: between ranks, and between a device and its host.

An all-gather or a reduce-scatter of B bytes among n ranks moves B (n - 1) / n of each; an all-reduce is one
of both; an all-to-all moves (n - 1) / n of what a rank holds.
"""

from __future__ import annotations

from math import prod

from mm_config.planning.costs import Flow, Layout, ceil_div, infer_layout, largest_clip, passes, train_layout
from mm_config.planning.encoders import BYTES
from mm_config.planning.inference import expert_bytes, outside_bytes, passes_by_step
from mm_config.planning.parameters import trainable_count, units
from mm_config.planning.training import train_memory
from mm_config.specs.data import Cache
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.parallel import Recompute
from mm_config.specs.serving import GuidanceMode, Residency
from mm_config.specs.train import TrainSpec

_PER_BLOCK = 4
"""All-to-alls of a block's forward pass with Ulysses: queries, keys, values and the output."""
_TENSOR_REDUCES = 3
"""All-reduces of a block's forward pass with tensor parallelism: both attentions, feed-forward."""


def train_traffic(spec: TrainSpec, world_size: int) -> tuple[Flow, ...]:
    """What one optimizer step moves on each rank."""
    layout = train_layout(spec, world_size)
    share, micro, number = passes(spec, world_size)
    compute, reduce = BYTES[spec.precision.compute], BYTES[spec.precision.reduce]
    whole = ceil_div(spec.model.parameter_count(), layout.tensor)
    found = units(spec.model, spec.fsdp.wrap, spec.fsdp.ignore)
    shared = whole - found.ignored
    trained = ceil_div(trainable_count(spec.model, spec.frozen, spec.lora), layout.tensor)
    # The root stays gathered between forward and backward, and so does all where nothing is resharded.
    twice = found.wrapped // layout.tensor if spec.fsdp.reshard_after_forward else 0
    clip = largest_clip(spec.data)
    latent_shape = spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width)
    again = {Recompute.NONE: 0.0, Recompute.SELECTIVE: 0.75, Recompute.FULL: 1.0}[spec.recompute.mode]
    nearer = min(spec.fsdp.reshard_size or layout.shard, layout.shard)
    near, far = (twice, shared) if nearer < layout.shard else (0, shared + twice)
    flows = [
        Flow("gathered_weights", _part(far * compute * number, layout.shard), _span(layout)),
        Flow("gathered_again", _part(near * compute * number, nearer), nearer * layout.tensor),
        Flow("reduced_gradients", _part(trained * reduce, layout.shard), _span(layout)),
        Flow(
            "copies_gradients", 2 * _part(ceil_div(trained, layout.shard) * reduce, layout.copies), world_size
        ),
        *_sequence_flows(
            spec.model, latent_shape, micro * number * compute, layout, 2 + again, backward=True
        ),
        Flow("data", _data_bytes(spec, share), 0),
    ]
    shard_bytes = ceil_div(whole, layout.shard)
    if spec.fsdp.offload:
        flows.append(Flow("offloaded_states", shard_bytes * 4 * (2 * number + 1), 0))
    if spec.recompute.offload:
        outside = train_memory(spec, world_size).host.get("activations", 0)
        flows.append(Flow("offloaded_activations", 2 * number * outside, 0))
    if spec.ema is not None and spec.ema.offload:
        flows.append(Flow("offloaded_ema", ceil_div(4 * trained, layout.shard * spec.ema.every_steps), 0))
    return tuple(flow for flow in flows if flow.bytes)


def infer_traffic(spec: InferSpec) -> tuple[Flow, ...]:
    """What one video moves on each rank."""
    layout, runtime = infer_layout(spec), spec.runtime
    steps = passes_by_step(spec)
    batched = runtime.guidance is GuidanceMode.BATCHED
    # Weights are fetched once per pass through the network, whatever its batch.
    fetches = len(steps) if batched or runtime.guidance is GuidanceMode.PARALLEL else sum(steps)
    on_rank = len(steps) if runtime.guidance is GuidanceMode.PARALLEL else sum(steps)
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    whole = ceil_div(expert_bytes(spec) * layout.shard, runtime.batch_size)
    flows = [
        Flow("gathered_weights", _part(whole * fetches, layout.shard), _span(layout)),
        *_sequence_flows(spec.model, latent_shape, on_rank * BYTES[spec.dtype], layout, 1, backward=False),
    ]
    experts = 1 if spec.low_noise is None else 2
    if runtime.residency.experts is Residency.SWAP:
        flows.append(Flow("swapped_experts", experts * expert_bytes(spec) // runtime.batch_size, 0))
    if runtime.residency.experts is Residency.LAYERWISE:
        flows.append(Flow("blocks_from_host", outside_bytes(spec) * fetches // runtime.batch_size, 0))
    return tuple(flow for flow in flows if flow.bytes)


def _data_bytes(spec: TrainSpec, share: int) -> int:
    """A step's frames as bytes, or its latents as float32 where they were computed before."""
    clip, known = largest_clip(spec.data), spec.data.precomputed
    if spec.data.cache is Cache.NONE and (known is None or not known.latents):
        return share * 3 * clip.num_frames * clip.height * clip.width
    cells = prod(spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width))
    return share * cells * spec.autoencoder.latent_channels * 4


def _sequence_flows(
    model: ModelSpec,
    latent_shape: tuple[int, int, int],
    bytes_per_value: int,
    layout: Layout,
    forwards: float,
    *,
    backward: bool,
) -> list[Flow]:
    """Ulysses', ring's and tensor parallelism's traffic of all blocks.

    Args:
        model: The network.
        latent_shape: Of one sample.
        bytes_per_value: Times the samples that pass through.
        layout: The ranks.
        forwards: Passes that exchange heads or sums: forward, backward, and recomputation's share.
        backward: Whether the ring also goes round backwards, with gradients.
    """
    stream = model.num_layers * model.block_input_values(latent_shape) * bytes_per_value
    local, span = ceil_div(stream, layout.sequence), layout.per_sample
    # The ring hands keys and values on; backwards, with their gradients.
    turns = (6 if backward else 2) * (layout.ring - 1)
    return [
        Flow("ulysses", int(_PER_BLOCK * forwards * _part(local, layout.ulysses)), span),
        Flow("ring", turns * local, span),
        Flow("tensor", int(_TENSOR_REDUCES * forwards * 2 * _part(local, layout.tensor)), span),
    ]


def _part(size: int, ranks: int) -> int:
    return size * (ranks - 1) // ranks


def _span(layout: Layout) -> int:
    return layout.shard * layout.tensor

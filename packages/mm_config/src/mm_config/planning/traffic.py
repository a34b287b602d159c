"""Bytes that a rank moves: between ranks, and between a device and its host.

An all-gather or a reduce-scatter of B bytes among n ranks moves B (n - 1) / n of each; an all-reduce is one
of both; an all-to-all moves (n - 1) / n of what a rank holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from mm_config.planning.costs import (
    Flow,
    Kind,
    Layout,
    ceil_div,
    infer_layout,
    largest_clip,
    passes,
    train_layout,
)
from mm_config.planning.denoising import passes_by_step
from mm_config.planning.encoders import BYTES
from mm_config.planning.inference import expert_bytes, outside_bytes
from mm_config.planning.parameters import (
    Shapes,
    block_matrices,
    matched_blocks,
    padded_values,
    splits_of_block,
    trainable_count,
    unit_shapes,
)
from mm_config.planning.training import train_memory
from mm_config.specs.data import Cache
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec, Split
from mm_config.specs.optim import MuonSpec
from mm_config.specs.parallel import FsdpSpec, Recompute
from mm_config.specs.serving import GuidanceMode, Residency
from mm_config.specs.train import TrainSpec


def train_traffic(spec: TrainSpec, world_size: int) -> tuple[Flow, ...]:
    """What one optimizer step moves on each rank."""
    layout = train_layout(spec, world_size)
    share, micro, number = passes(spec, world_size)
    clip = largest_clip(spec.data)
    latent_shape = spec.autoencoder.latent_shape(clip.num_frames, clip.height, clip.width)
    mode = spec.recompute.mode
    flows = [
        *_weight_flows(spec, layout, number),
        *_sequence_flows(
            spec.model,
            latent_shape,
            (micro * number * BYTES[spec.precision.compute], 4 * micro * number),
            layout,
            number,
            (matched_blocks(spec.model, spec.recompute.modules) * (mode is not Recompute.NONE), mode),
        ),
        _muon_turns(spec, layout),
        _numbers(layout, world_size),
        _copied("data", _data_bytes(spec, share)),
    ]
    if spec.fsdp.offload:
        shard_bytes = ceil_div(ceil_div(spec.model.parameter_count(), layout.tensor), layout.shard)
        flows.append(_copied("offloaded_states", shard_bytes * 4 * (2 * number + 1)))
    if spec.recompute.offload:
        outside = train_memory(spec, world_size).host.get("activations", 0)
        flows.append(_copied("offloaded_activations", 2 * number * outside))
    if spec.ema is not None and spec.ema.offload:
        trained = ceil_div(trainable_count(spec.model, spec.frozen, spec.lora), layout.tensor)
        flows.append(_copied("offloaded_ema", ceil_div(4 * trained, layout.shard * spec.ema.every_steps)))
    return tuple(flow for flow in flows if flow.bytes)


def _weight_flows(spec: TrainSpec, layout: Layout, number: int) -> Iterator[Flow]:
    """FSDP2's: a message for each unit, whose parameters are filled up to whole rows on each rank.

    A unit is gathered for each forward and, where it is given up between them, each backward pass; the root
    stays. Gradients are reduced in the last pass of a step. What the first unit waits for at the beginning
    and what the root sends at the end has no computation to hide behind.
    """
    wrapped, root, ignored = unit_shapes(spec.model, spec.fsdp, spec.frozen, spec.lora, layout.tensor)
    shard, tensor, copies = layout.shard, layout.tensor, layout.copies

    def values(shapes: Shapes, *, trained: bool = False) -> int:
        return padded_values(shapes, shard, trained=trained)

    gather, reduce = shard * number * BYTES[spec.precision.compute], shard * BYTES[spec.precision.reduce]
    units = [(count, values(shapes), values(shapes, trained=True)) for shapes, count in wrapped.items()]
    number_of, gathered = sum(count for count, _, _ in units), sum(count * size for count, size, _ in units)
    reduced, messages = (
        sum(count * size for count, _, size in units),
        sum(count for count, _, size in units if size),
    )
    kept, last, first = values(root), values(root, trained=True), units[0][1] if units else 0
    yield _among(
        "gathered_weights",
        Kind.ALL_GATHER,
        (shard, shard * tensor),
        number * (number_of + bool(root)),
        gather * (gathered + kept),
        gather * (gathered - first),
    )
    if spec.fsdp.reshard_after_forward:
        nearer = min(spec.fsdp.reshard_size or shard, shard)
        size, span = gather * gathered, (nearer, nearer * tensor)
        yield _among("gathered_again", Kind.ALL_GATHER, span, number * number_of, size, size)
    for name, kind, span, size in (
        ("reduced_gradients", Kind.REDUCE_SCATTER, (shard, shard * tensor), reduce),
        ("copies_gradients", Kind.ALL_REDUCE, (copies, shard * tensor * copies), reduce // shard),
    ):
        yield _among(name, kind, span, messages + bool(last), size * (reduced + last), size * reduced)
    # Modules that are whole on every rank are units, of which gradients alone are averaged.
    sizes = [(count, padded_values(shapes, 1, trained=True)) for shapes, count in ignored.items()]
    size = BYTES[spec.precision.reduce] * sum(count * size for count, size in sizes)
    everywhere, messages = shard * copies, sum(count for count, size in sizes if size)
    span = (everywhere, everywhere * tensor)
    yield _among("ignored_gradients", Kind.ALL_REDUCE, span, messages, size, size)


def _muon_turns(spec: TrainSpec, layout: Layout) -> Flow:
    """Muon's matrices as bfloat16, filled up to whole rows on a rank: rows go to the rank whose turn it is,
    and come back. Where tensor ranks split them, too, every rank gathers them, and its part costs nothing."""
    shard, together = layout.shard, layout.shard * layout.tensor
    taken = isinstance(spec.optim, MuonSpec)
    shapes = block_matrices(spec.model, spec.frozen, spec.lora, spec.fsdp.ignore) if taken else ()
    size = BYTES[Dtype.BFLOAT16] * padded_values(shapes, shard)
    if layout.tensor > 1:
        return _among("muon", Kind.ALL_GATHER, (together, together), len(shapes), shard * size)
    return _among("muon", Kind.ALL_TO_ALL, (shard, shard), 2 * ceil_div(len(shapes), shard), 2 * size)


def _numbers(layout: Layout, world_size: int) -> Flow:
    """The loss and the gradients' norm as float32, and as int64 whether all have data and whether to stop."""
    sizes = (4, *[4] * (layout.shard > 1), 8, 8)
    return _among("numbers", Kind.ALL_REDUCE, (world_size, world_size), len(sizes), sum(sizes))


def _among(
    name: str, kind: Kind, ranks: tuple[int, int], messages: int, size: int, hideable: int = 0
) -> Flow:
    """Bytes that belong to some ranks, and the span of these in the world."""
    times, (number, span) = 2 if kind is Kind.ALL_REDUCE else 1, ranks
    return Flow(name, kind, messages, times * _part(size, number), span, times * _part(hideable, number))


def _copied(name: str, size: int) -> Flow:
    return Flow(name, Kind.COPY, 1, size, 0, size)


def infer_traffic(spec: InferSpec, first_step: int = 0) -> tuple[Flow, ...]:
    """What one video moves on each rank."""
    layout, runtime, steps = infer_layout(spec), spec.runtime, passes_by_step(spec)[first_step:]
    apart = runtime.guidance is GuidanceMode.PARALLEL
    # Weights are fetched once per pass through the network, whatever its batch.
    fetches = sum(steps) if runtime.guidance is GuidanceMode.SEQUENTIAL else len(steps)
    on_rank = len(steps) if apart else sum(steps)
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    size = 4 if spec.float32_residual else BYTES[spec.dtype]
    velocity = size * spec.model.out_channels * prod(latent_shape)
    both = sum(count == 2 for count in steps) if apart else 0
    world = layout.data * layout.per_sample * (2 if apart else 1)
    turns = (len(steps) + 1 if layout.data > 1 else 0) + 1
    flows = [
        _whole_blocks(spec, layout, fetches),
        *_sequence_flows(
            spec.model, latent_shape, (on_rank * BYTES[spec.dtype], on_rank * 4), layout, fetches
        ),
        _among("guidance", Kind.ALL_GATHER, (2, 2 * layout.per_sample), both, 2 * velocity * both),
        _among("numbers", Kind.ALL_REDUCE, (world, world), turns, 8 * turns),
    ]
    experts = 1 if spec.low_noise is None else 2
    if runtime.residency.experts is Residency.SWAP:
        flows.append(_copied("swapped_experts", experts * expert_bytes(spec) // runtime.batch_size))
    if runtime.residency.experts is Residency.LAYERWISE:
        flows.append(_copied("blocks_from_host", outside_bytes(spec) * fetches // runtime.batch_size))
    return tuple(flow for flow in flows if flow.bytes)


def _whole_blocks(spec: InferSpec, layout: Layout, fetches: int) -> Flow:
    """FSDP2: blocks, and what is left, are whole for a pass alone, in the formats that they are kept in."""
    if layout.shard == 1:
        return _among("gathered_weights", Kind.ALL_GATHER, (1, layout.tensor), 0, 0)
    model, narrow = spec.model, BYTES[spec.dtype]
    wide = tuple(name for name in model.parameter_shapes() if model.stays_float32(name))
    wrapped, root, _ = unit_shapes(model, FsdpSpec(), frozen=wide, tensor=layout.tensor)
    units = [*wrapped.items(), (root, 1)]
    values, narrow_values = (
        sum(count * padded_values(shapes, layout.shard, trained=kept) for shapes, count in units)
        for kept in (False, True)
    )
    number = sum(count for _, count in units)
    size = layout.shard * (narrow_values * narrow + (values - narrow_values) * 4) * fetches
    size = ceil_div(size, spec.runtime.batch_size)
    span = (layout.shard, layout.shard * layout.tensor)
    return _among("gathered_weights", Kind.ALL_GATHER, span, number * fetches, size, size)


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
    sizes: tuple[int, int],
    layout: Layout,
    number: int,
    again: tuple[int, Recompute] | None = None,
) -> list[Flow]:
    """Ulysses', ring's and tensor parallelism's traffic of all blocks.

    Each rank has equally many tokens, the last ones padding. Ulysses exchanges queries, keys and values at
    once, then the output, and the same for gradients. The ring hands keys and values on, backwards with their
    gradients in float32 behind them. After the last block the stream is gathered. Tensor ranks add up the
    outputs of layers that are split by inputs, the gradients of what goes into split modules, and the means
    of norms both ways; those of captions are counted as if they were tokens of the sample, and the gradients
    of what captions enter are not.

    Args:
        model: The network.
        latent_shape: Of one sample.
        sizes: Bytes of a value, times the samples that pass through: in computation, and in float32.
        layout: The ranks.
        number: Forward passes through the network, of whatever batch.
        again: In training, blocks that are computed again, and how.
    """
    tokens, (size, wide), blocks = model.tokens(latent_shape), sizes, model.num_layers
    local = ceil_div(tokens, layout.sequence)
    stream = local * ceil_div(model.block_input_values(latent_shape), tokens)
    backward, (repeated, mode) = blocks * (again is not None), again or (0, Recompute.NONE)
    # Selective recomputation keeps what the ring made, not what Ulysses exchanged.
    passes, turns = blocks + backward + repeated, layout.ring - 1
    rounds = blocks + backward + (repeated if mode is Recompute.FULL else 0)
    of_heads = ceil_div(stream, layout.tensor)
    ring = 2 * of_heads * turns * (rounds * size + backward * wide)
    counts = splits_of_block(model)
    inputs, inside, norms = (counts[one] for one in (Split.INPUTS, Split.INSIDE, Split.NORM))
    sums = (blocks + repeated) * (inputs + norms) + backward * (inside + norms)
    summed = (blocks + repeated) * inputs * stream * size + backward * inside * stream * size
    summed += passes * norms * local * wide
    flows = [
        (
            "ulysses",
            Kind.ALL_TO_ALL,
            (layout.ulysses, layout.ulysses * layout.tensor),
            2 * passes,
            4 * passes * of_heads * size,
        ),
        ("tensor", Kind.ALL_REDUCE, (layout.tensor, layout.tensor), sums, summed),
        (
            "gathered_stream",
            Kind.ALL_GATHER,
            (layout.sequence, layout.per_sample),
            (layout.ulysses > 1) + (layout.ring > 1),
            stream * size * layout.sequence,
        ),
    ]
    return [
        Flow("ring", Kind.SEND, number * turns * (rounds + backward), ring, layout.per_sample, ring),
        *(_among(name, kind, span, number * messages, total) for name, kind, span, messages, total in flows),
    ]


def _part(size: int, ranks: int) -> int:
    return size * (ranks - 1) // ranks

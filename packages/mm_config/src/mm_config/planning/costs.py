"""What a plan is made of before it is held against a device: work, memory, traffic, and who shares them."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs

from mm_config.specs.data import DataSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import GuidanceMode
from mm_config.specs.train import TrainSpec

STREAMS = 3
"""Residual streams among the values of a block: its input, and what its first two branches make of it."""


@attrs.frozen
class Work:
    """The floating-point operations of a training step, or of a generated video."""

    tokens: int
    """Tokens of one sample."""
    samples: int
    """Clips of a step; 1 for a video."""
    flops_by_part: dict[str, int]
    """One sample's forward pass."""
    step_flops: int
    """Model FLOPs: what the result needs; recomputation is not counted."""
    product_flops: int
    """Executed outside of attention's kernels."""
    attention_forward_flops: int
    """Executed by attention's kernels in forward passes, those of recomputation included."""
    attention_backward_flops: int
    """Executed by attention's kernels in backward passes, counted as two forward passes."""
    dtype: Dtype
    """Format of the computation."""
    allow_tf32: bool
    """Whether float32 products may round their factors."""
    ranks: int
    """Ranks that share the work evenly."""

    @property
    def forward_flops(self) -> int:
        """One sample's forward pass."""
        return sum(self.flops_by_part.values())

    @property
    def executed_flops(self) -> int:
        """All that is computed, recomputation included."""
        return self.product_flops + self.attention_forward_flops + self.attention_backward_flops


@attrs.frozen
class Memory:
    """What occupies a rank's device and, for it, the host."""

    phases: dict[str, dict[str, int]]
    """Bytes on the device by what they are for, in each phase of a step or a video."""
    host: dict[str, int]
    """Bytes in the host's memory."""
    activations_by_recompute: dict[str, int]
    """Training: bytes of the network's activations in each mode."""

    @property
    def fullest(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def bytes(self) -> dict[str, int]:
        """What is on the device in the fullest phase."""
        return self.phases[self.fullest]

    @property
    def total(self) -> int:
        """Bytes on the device in the fullest phase."""
        return sum(self.bytes.values())


class Kind(enum.Enum):
    """How a flow moves."""

    ALL_GATHER = "all-gather"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_REDUCE = "all-reduce"
    ALL_TO_ALL = "all-to-all"
    SEND = "send/receive"
    COPY = "copy"
    """Between a device and its host."""


@attrs.frozen
class Flow:
    """What one rank sends in a training step, or for a video."""

    name: str
    """What is sent."""
    kind: Kind
    """By which operation."""
    messages: int
    """Operations."""
    bytes: int
    """Bytes that leave the rank."""
    span: int
    """Ranks among which it flows, counted as neighbours in the world; 0 between the device and its host."""
    hideable: int
    """Bytes that can flow while the rank computes."""


def collectives(flows: Iterable[Flow]) -> dict[str, dict[str, int]]:
    """The messages and bytes of each kind of operation among ranks, and what of the bytes can be hidden."""
    found: dict[str, dict[str, int]] = {}
    for flow in flows:
        if flow.kind is not Kind.COPY:
            total = found.setdefault(flow.kind.value, {"messages": 0, "bytes": 0, "hideable_bytes": 0})
            total["messages"] += flow.messages
            total["bytes"] += flow.bytes
            total["hideable_bytes"] += flow.hideable
    return found


@attrs.frozen
class Layout:
    """Ranks by what they share."""

    sequence: int
    """Ranks that share one sample's tokens: Ulysses times ring."""
    ulysses: int
    """Ranks that share the heads of a sequence."""
    ring: int
    """Ranks that share its tokens."""
    tensor: int
    """Ranks that share matrices."""
    shard: int
    """Ranks that share one copy of the parameters, beyond tensor parallelism."""
    copies: int
    """Copies of the parameters in the world."""
    data: int
    """Groups of ranks that work on different samples."""

    @property
    def per_sample(self) -> int:
        """Ranks that work on one sample."""
        return self.sequence * self.tensor


@attrs.frozen
class Clip:
    """The size that a plan counts with."""

    num_frames: int
    """Frames."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    batch_size: int
    """Clips per optimizer step over all ranks."""


def train_layout(spec: TrainSpec, world_size: int) -> Layout:
    """The layout of a training; degrees that don't divide the world are for the rules to refuse."""
    parallel = spec.parallel
    rest = max(1, world_size // parallel.tensor)
    shard = min(spec.fsdp.shard_size or rest, rest)
    return Layout(
        sequence=parallel.ulysses * parallel.ring,
        ulysses=parallel.ulysses,
        ring=parallel.ring,
        tensor=parallel.tensor,
        shard=shard,
        copies=max(1, rest // shard),
        data=max(1, world_size // parallel.ranks_per_sample),
    )


def infer_layout(spec: InferSpec) -> Layout:
    """The layout of a generation."""
    parallel = spec.runtime.parallel
    branches = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    sequence = parallel.ulysses * parallel.ring
    return Layout(
        sequence=sequence,
        ulysses=parallel.ulysses,
        ring=parallel.ring,
        tensor=parallel.tensor,
        shard=sequence * branches if parallel.fsdp else 1,
        copies=parallel.data,
        data=parallel.data,
    )


def largest_clip(data: DataSpec) -> Clip:
    """The clips of a step, or those of the bucket with most pixels in a step."""
    sizes = [
        Clip(bucket.num_frames, bucket.height, bucket.width, bucket.batch_size or data.batch_size)
        for bucket in data.buckets
    ] or [Clip(data.num_frames, data.height, data.width, data.batch_size)]
    return max(sizes, key=lambda clip: clip.num_frames * clip.height * clip.width * clip.batch_size)


def passes(spec: TrainSpec, world_size: int) -> tuple[int, int, int]:
    """A rank's clips in a step, those in one forward pass, and the number of passes."""
    share = ceil_div(largest_clip(spec.data).batch_size, train_layout(spec, world_size).data)
    micro = min(spec.runtime.micro_batch_size or share, share)
    return share, micro, ceil_div(share, micro)


def ceil_div(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)

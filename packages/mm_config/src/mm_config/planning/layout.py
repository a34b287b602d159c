"""How ranks share samples and parameters."""

from __future__ import annotations

import attrs

from mm_config.planning.costs import ceil_div
from mm_config.specs.data import DataSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.serving import GuidanceMode
from mm_config.specs.train import TrainSpec


@attrs.frozen
class Layout:
    """Ranks by what they share."""

    sequence: int
    """Ranks that share one sample's tokens: Ulysses times ring."""
    ulysses: int
    ring: int
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
    height: int
    width: int
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

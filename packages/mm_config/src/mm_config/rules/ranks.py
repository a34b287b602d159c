"""Rules on ranks: degrees divide the world, heads divide over ranks, batches over groups of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

from mm_config.rules.wording import counted, divisor_problems, divisors, either, nearest_multiples, ranks
from mm_config.schema.errors import Problem
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import ModelSpec
from mm_config.specs.parallel import ParallelSpec
from mm_config.specs.serving import GenerationParallelSpec, GuidanceMode
from mm_config.specs.train import TrainSpec


def head_problems(
    parallel: ParallelSpec | GenerationParallelSpec, model: ModelSpec, path: str
) -> Iterator[Problem]:
    """Tensor ranks share heads and the feed-forward width; Ulysses ranks share the heads that are left.

    Args:
        parallel: The degrees.
        model: The network.
        path: Where the spec that holds the network stands.
    """
    if parallel.tensor > 1 and not model.tensor_plan():
        yield Problem(
            "tensor", f"is {parallel.tensor}, but {path}.model has no plan for splitting its matrices"
        )
        return
    heads, width = model.num_attention_heads, cast("int | None", model.ffn_dim)
    common = math.gcd(heads, width or 0)
    if common % parallel.tensor:
        fed = "" if width is None else f" and {path}.model.ffn_dim {width}"
        yield Problem(
            "tensor",
            f"{ranks(parallel.tensor)} can't share the {heads} heads of {path}.model.num_attention_heads"
            f"{fed}; those that can: {divisors(common)}",
        )
    left = heads // parallel.tensor if heads % parallel.tensor == 0 else heads
    if left % parallel.ulysses:
        which = f"{left} of the {heads} heads" if left < heads else f"the {heads} heads"
        yield Problem(
            "ulysses",
            f"{ranks(parallel.ulysses)} can't share {which} of {path}.model.num_attention_heads; "
            f"those that can: {divisors(left)}",
        )


def train_rank_problems(spec: TrainSpec, world_size: int | None) -> Iterator[Problem]:
    """Ranks per clip divide the world, batches the data-parallel ranks.

    Args:
        spec: The training spec.
        world_size: Ranks of the run; None checks the batch for one data-parallel rank.
    """
    degrees, together = spec.parallel, spec.parallel.ranks_per_sample
    if world_size is None:
        yield from _batch_problems(spec, 1, "")
        return
    if world_size % together:
        legal = either(nearest_multiples(world_size, together))
        yield Problem(
            "parallel",
            f"ulysses {degrees.ulysses} x ring {degrees.ring} x tensor {degrees.tensor} = {ranks(together)} "
            f"per clip do not divide {ranks(world_size)}; nearest numbers of ranks: {legal}",
        )
    else:
        note = f" ({world_size} with {together} per clip)" if together > 1 else ""
        yield from _batch_problems(spec, world_size // together, note)
    yield from _shard_problems(spec, world_size)
    for name, recording in (("profiler", spec.profiler), ("memory_snapshot", spec.memory_snapshot)):
        for index, rank in enumerate(recording.ranks if recording is not None else ()):
            if rank >= world_size:
                yield Problem(
                    f"{name}.ranks.{index}", f"there is no rank {rank}: {ranks(world_size)} count from 0"
                )


def generation_rank_problems(spec: InferSpec, world_size: int | None) -> Iterator[Problem]:
    """Every rank has its part in generation: the product of the degrees is the world."""
    degrees = spec.runtime.parallel
    both = 2 if spec.runtime.guidance is GuidanceMode.PARALLEL else 1
    together = degrees.ulysses * degrees.ring * degrees.tensor * both
    product = degrees.data * together
    if world_size is None or product == world_size:
        return
    shown = f"data {degrees.data} x ulysses {degrees.ulysses} x ring {degrees.ring} x tensor {degrees.tensor}"
    guidance = " x 2 for runtime.guidance parallel" if both == 2 else ""
    data = f", or set data to {world_size // together}" if world_size % together == 0 else ""
    yield Problem(
        "runtime.parallel",
        f"{shown}{guidance} = {ranks(product)}, but the run has {world_size}; start {product}{data}",
    )


def _batch_problems(spec: TrainSpec, groups: int, note: str) -> Iterator[Problem]:
    """The global batch divides over data-parallel ranks, and a rank's share into micro-batches."""
    sizes = {"data.batch_size": spec.data.batch_size}
    for index, bucket in enumerate(spec.data.buckets):
        if bucket.batch_size is not None:
            sizes[f"data.buckets.{index}.batch_size"] = bucket.batch_size
    micro = spec.runtime.micro_batch_size
    for name, batch in sizes.items():
        share = batch // groups
        if batch % groups:
            legal = either(nearest_multiples(batch, groups))
            kind = f"{groups} data-parallel ranks{note}" if note else f"{groups} ranks"
            clips = "1 clip does" if batch == 1 else f"{batch} clips do"
            yield Problem(name, f"{clips} not divide over {kind}; nearest: {legal}")
        elif micro is not None:
            clips = f"a rank's {counted(share, 'clip')}{'' if name == 'data.batch_size' else f' of {name}'}"
            yield from divisor_problems("runtime.micro_batch_size", micro, share, clips)


def _shard_problems(spec: TrainSpec, world_size: int) -> Iterator[Problem]:
    """Ranks that share a copy of the parameters: all but those that hold other parts of each matrix."""
    size, part, tensor = spec.fsdp.shard_size, spec.fsdp.reshard_size, spec.parallel.tensor
    if world_size % tensor:
        return
    group = world_size // tensor
    kind = ranks(group) + (f" ({world_size} with tensor {tensor})" if tensor > 1 else "")
    if size is not None:
        yield from divisor_problems("fsdp.shard_size", size, group, kind)
    elif part is not None:
        yield from divisor_problems("fsdp.reshard_size", part, group, kind)

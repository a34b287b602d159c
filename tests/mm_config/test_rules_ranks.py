"""Rules on ranks: which degrees, batches and shards a number of ranks allows."""

from typing import Any

import pytest

from mm_config import replace
from mm_config.specs.data import BucketSpec
from mm_config.specs.monitoring import MemorySnapshotSpec, ProfilerSpec
from mm_config.specs.serving import GuidanceMode
from tests.mm_config.breaking import INFER, TRAIN, WAN_1_3B, WAN_HIGH, WAN_SINGLE, WAN_T2V, found, only


def test_the_batch_divides_over_ranks_and_micro_batches() -> None:
    assert found(TRAIN, {}, world_size=4) == {}
    assert found(TRAIN, {}, world_size=3) == {
        "spec.data.batch_size": "32 clips do not divide over 3 ranks; nearest: 30 or 33"
    }
    assert found(TRAIN, {}, world_size=64) == {
        "spec.data.batch_size": "32 clips do not divide over 64 ranks; nearest: 64"
    }
    micro = {"runtime.micro_batch_size": 5}
    assert found(TRAIN, micro, world_size=2) == {
        "spec.runtime.micro_batch_size": "5 does not divide a rank's 16 clips; nearest: 4 or 8"
    }
    assert "spec.runtime.micro_batch_size" in found(TRAIN, micro)


def test_the_batch_divides_over_data_parallel_ranks_alone() -> None:
    pairs = {"parallel.ulysses": 2, "data.batch_size": 4}
    assert found(WAN_1_3B, pairs, world_size=8) == {}
    assert found(WAN_1_3B, {**pairs, "data.batch_size": 6}, world_size=8) == {
        "spec.data.batch_size": "6 clips do not divide over 4 data-parallel ranks (8 with 2 per clip); "
        "nearest: 4 or 8"
    }
    micro = {**pairs, "data.batch_size": 8, "runtime.micro_batch_size": 2}
    assert found(WAN_1_3B, micro, world_size=8) == {}


def test_batches_of_buckets_divide_too() -> None:
    sizes = ((81, 8), (49, 16), (5, 20), (1, None))
    buckets = tuple(
        BucketSpec(num_frames=frames, height=480, width=832, batch_size=batch) for frames, batch in sizes
    )
    assert found(WAN_1_3B, {"data.buckets": buckets}, world_size=4) == {}
    assert found(WAN_1_3B, {"data.buckets": buckets}, world_size=8) == {
        "spec.data.buckets.2.batch_size": "20 clips do not divide over 8 ranks; nearest: 16 or 24"
    }
    micro = {"data.buckets": buckets, "runtime.micro_batch_size": 2}
    assert found(WAN_1_3B, micro, world_size=4) == {
        "spec.runtime.micro_batch_size": "2 does not divide a rank's 5 clips of data.buckets.2.batch_size; "
        "nearest: 1 or 5"
    }


@pytest.mark.parametrize("micro", [999_982, 3, 2**16 + 1])
def test_nearest_divisors_of_a_large_prime_are_found(micro: int) -> None:
    changes = {"data.batch_size": 999_983, "runtime.micro_batch_size": micro}
    assert found(WAN_1_3B, changes).keys() == {"spec.runtime.micro_batch_size"}


def test_degrees_divide_the_ranks() -> None:
    degrees = {"parallel.ulysses": 2, "parallel.ring": 3, "data.batch_size": 12}
    assert found(WAN_1_3B, degrees, world_size=12) == found(WAN_1_3B, degrees) == {}
    assert found(WAN_1_3B, degrees, world_size=8) == {
        "spec.parallel": "ulysses 2 x ring 3 x tensor 1 = 6 ranks per clip do not divide 8 ranks; "
        "nearest numbers of ranks: 6 or 12"
    }
    assert "nearest numbers of ranks: 6" in found(WAN_1_3B, degrees, world_size=1)["spec.parallel"]


@pytest.mark.parametrize("ulysses", [2, 3, 4, 6, 12])
def test_ulysses_degrees_of_the_small_network(ulysses: int) -> None:
    assert found(WAN_1_3B, {"parallel.ulysses": ulysses}) == {}
    assert found(WAN_SINGLE, {"runtime.parallel.ulysses": ulysses}) == {}


@pytest.mark.parametrize("ulysses", [5, 7, 8, 24])
def test_ulysses_ranks_share_the_heads(ulysses: int) -> None:
    message = (
        f"{ulysses} ranks can't share the 12 heads of spec.model.num_attention_heads; "
        "those that can: 2, 3, 4, 6, 12"
    )
    assert found(WAN_1_3B, {"parallel.ulysses": ulysses}) == {"spec.parallel.ulysses": message}
    assert found(WAN_SINGLE, {"runtime.parallel.ulysses": ulysses}) == {
        "spec.runtime.parallel.ulysses": message
    }


def test_tensor_ranks_share_heads_and_feed_forward_and_leave_heads_to_ulysses() -> None:
    assert found(WAN_HIGH, {"parallel.tensor": 8, "parallel.ulysses": 5}) == {}
    only(
        WAN_HIGH,
        {"parallel.tensor": 8, "parallel.ulysses": 4},
        "parallel.ulysses",
        "can't share 5 of the 40 heads",
        "those that can: 5",
    )
    only(WAN_1_3B, {"parallel.tensor": 8}, "parallel.tensor", "12 heads", "those that can: 2, 4")
    only(
        WAN_1_3B, {"parallel.tensor": 3}, "parallel.tensor", "spec.model.ffn_dim 8960", "those that can: 2, 4"
    )
    assert found(WAN_1_3B, {"parallel.tensor": 5, "parallel.ulysses": 5}).keys() == {
        "spec.parallel.tensor",
        "spec.parallel.ulysses",
    }


def test_shards_divide_the_ranks_that_hold_the_same_part() -> None:
    half = {"fsdp.shard_size": 4}
    assert found(WAN_1_3B, half, world_size=8) == found(WAN_1_3B, half) == {}
    only(
        WAN_1_3B,
        {"fsdp.shard_size": 3},
        "fsdp.shard_size",
        "3 does not divide 8 ranks; nearest: 2 or 4",
        world_size=8,
    )
    only(
        WAN_1_3B,
        {"fsdp.shard_size": 8, "parallel.tensor": 2},
        "fsdp.shard_size",
        "8 does not divide 4 ranks (8 with tensor 2); nearest: 4",
        world_size=8,
    )
    assert found(WAN_1_3B, {"fsdp.shard_size": 8, "parallel.ulysses": 2}, world_size=8) == {}


@pytest.mark.parametrize(
    ("name", "recording"),
    [("profiler", ProfilerSpec(ranks=(0, 9))), ("memory_snapshot", MemorySnapshotSpec(ranks=(0, 9)))],
)
def test_recorded_ranks_exist(name: str, recording: Any) -> None:
    assert found(WAN_1_3B, {name: recording}) == {}
    only(WAN_1_3B, {name: recording}, f"{name}.ranks.1", "no rank 9: 8 ranks count from 0", world_size=8)


def test_every_rank_has_its_part_in_generation() -> None:
    assert found(INFER, {}, world_size=1) == found(INFER, {}) == {}
    assert found(INFER, {}, world_size=2) == {
        "spec.runtime.parallel": "data 1 x ulysses 1 x ring 1 x tensor 1 = 1 rank, but the run has 2; "
        "start 1, or set data to 2"
    }
    degrees = {"runtime.parallel.data": 2, "runtime.parallel.ulysses": 2, "runtime.parallel.ring": 2}
    assert found(WAN_T2V, degrees, world_size=8) == {}
    both = replace(WAN_T2V, {**degrees, "runtime.guidance": GuidanceMode.PARALLEL})
    assert found(both, {}, world_size=16) == {}
    assert found(both, {}, world_size=12) == {
        "spec.runtime.parallel": "data 2 x ulysses 2 x ring 2 x tensor 1 x 2 for runtime.guidance parallel = "
        "16 ranks, but the run has 12; start 16"
    }

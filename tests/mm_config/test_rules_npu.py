"""Rules between the variables of an NPU, and between them and the rest of a run."""

from __future__ import annotations

from typing import Any

import pytest

from mm_config import replace
from mm_config.specs.npu import (
    Affinity,
    NpuAffinitySpec,
    NpuAllocatorSpec,
    NpuCoresSpec,
    NpuSpec,
    PageSize,
)
from tests.mm_config.breaking import INFER, TRAIN, found, only


@pytest.mark.parametrize(
    ("npu", "path", "part"),
    [
        (
            {"allocator": NpuAllocatorSpec(expandable_segments=True, garbage_collection_threshold=0.9)},
            "allocator.garbage_collection_threshold",
            "expandable_segments",
        ),
        (
            {"allocator": NpuAllocatorSpec(page_size=PageSize.ONE_GIB, large_segment_size_mb=64)},
            "allocator.large_segment_size_mb",
            "page_size:1g",
        ),
        (
            {"allocator": NpuAllocatorSpec(pin_memory_expandable_segments=True, pinned_mem_register=True)},
            "allocator.pinned_mem_register",
            "pin_memory_expandable_segments",
        ),
        (
            {"allocator": NpuAllocatorSpec(roundup_power2_divisions=6)},
            "allocator.roundup_power2_divisions",
            "power of two, got 6",
        ),
        ({"affinity": NpuAffinitySpec(force=True)}, "affinity.mode", "choose off, coarse or fine"),
        (
            {
                "affinity": NpuAffinitySpec(
                    mode=Affinity.COARSE, cores=(NpuCoresSpec(npu=2, first=0, last=3),) * 2
                )
            },
            "affinity.cores",
            "NPU 2 is given twice",
        ),
        (
            {
                "affinity": NpuAffinitySpec(
                    mode=Affinity.COARSE, cores=(NpuCoresSpec(npu=0, first=3, last=1),)
                )
            },
            "affinity.cores.0.last",
            "before the first, 3",
        ),
        ({"launch_blocking": True, "task_queue": 1}, "task_queue", "ASCEND_LAUNCH_BLOCKING=1"),
        ({"task_queue": 0, "per_stream_queue": True}, "per_stream_queue", "TASK_QUEUE_ENABLE=0"),
        ({"visible_devices": (0, 1, 0)}, "visible_devices", "0, 1, 0"),
        ({"hccl_dfs_config": "heartbeat"}, "hccl_dfs_config", "got 'heartbeat'"),
    ],
)
def test_variables_that_contradict_each_other(npu: dict[str, Any], path: str, part: str) -> None:
    only(TRAIN, {"runtime.npu": NpuSpec(**npu)}, f"runtime.npu.{path}", part)


def test_waits_are_ordered_kernel_event_process_group() -> None:
    ordered = {"runtime.npu": NpuSpec(hccl_exec_timeout=600, hccl_event_timeout=700)}
    assert found(TRAIN, ordered) == {}
    only(
        TRAIN,
        {"runtime.npu": NpuSpec(hccl_exec_timeout=700, hccl_event_timeout=700)},
        "runtime.npu.hccl_event_timeout",
        "must exceed HCCL_EXEC_TIMEOUT (700 s), got 700 s",
    )
    too_late = {**ordered, "runtime.timeout_minutes": 11}
    only(TRAIN, too_late, "runtime.timeout_minutes", "660 s", "HCCL_EVENT_TIMEOUT (700 s)")
    assert found(TRAIN, {**ordered, "runtime.timeout_minutes": 12}) == {}
    only(INFER, ordered, "runtime.parallel.timeout_seconds", "600 s", "HCCL_EVENT_TIMEOUT (700 s)")
    assert found(INFER, {**ordered, "runtime.parallel.timeout_seconds": 701}) == {}


def test_what_is_left_to_hccl_counts_once_one_wait_is_set() -> None:
    assert found(TRAIN, {"runtime.npu": NpuSpec()}) == {}
    only(
        TRAIN,
        {"runtime.npu": NpuSpec(hccl_exec_timeout=900)},
        "runtime.timeout_minutes",
        "must exceed HCCL_EVENT_TIMEOUT (1868 s)",
    )


def test_a_deterministic_training_forbids_no_repeatable_sums() -> None:
    deterministic = replace(TRAIN, "runtime.deterministic", True)
    assert found(deterministic, {"runtime.npu": NpuSpec(hccl_deterministic=True)}) == {}
    only(
        deterministic,
        {"runtime.npu": NpuSpec(close_matmul_k_shift=False)},
        "runtime.npu.close_matmul_k_shift",
        "deterministic asks for it",
    )

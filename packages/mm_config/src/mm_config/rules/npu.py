"""Rules between the settings of an Ascend NPU's libraries.

Messages name environment variables, because the same rules hold for a shell's.
"""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.schema.errors import Problem
from mm_config.specs.npu import (
    HCCL_EVENT_SECONDS,
    HCCL_EXEC_SECONDS,
    UNSET_AFFINITY,
    NpuAffinitySpec,
    NpuAllocatorSpec,
    NpuCoresSpec,
    NpuSpec,
    PageSize,
)
from mm_config.specs.serving import InferRuntimeSpec
from mm_config.specs.train import TrainRuntimeSpec


def allocator_problems(allocator: NpuAllocatorSpec) -> Iterator[Problem]:
    """Options of the allocator that torch_npu refuses together, or of which it drops one with a warning."""
    if allocator.expandable_segments:
        for name in ("max_split_size_mb", "garbage_collection_threshold"):
            if getattr(allocator, name) is not None:
                yield Problem(name, "can't be had with expandable_segments; leave one of them out")
    if allocator.page_size is PageSize.ONE_GIB and allocator.large_segment_size_mb is not None:
        yield Problem("large_segment_size_mb", "is overridden by page_size:1g; leave one of them out")
    if allocator.pin_memory_expandable_segments and allocator.pinned_mem_register:
        yield Problem(
            "pinned_mem_register", "can't be had with pin_memory_expandable_segments; leave one of them out"
        )
    divisions = allocator.roundup_power2_divisions
    if divisions is not None and divisions & (divisions - 1):
        yield Problem("roundup_power2_divisions", f"must be a power of two, got {divisions}")


def cores_problems(cores: NpuCoresSpec) -> Iterator[Problem]:
    """A range of cores does not end before it begins."""
    if cores.last < cores.first:
        yield Problem("last", f"is core {cores.last}, before the first, {cores.first}")


def affinity_problems(affinity: NpuAffinitySpec) -> Iterator[Problem]:
    """Options of the binding need a mode; an NPU has one range of cores."""
    if affinity.mode is None and affinity != UNSET_AFFINITY:
        yield Problem("mode", "is missing: CPU_AFFINITY_CONF starts with it; choose off, coarse or fine")
    numbers = [cores.npu for cores in affinity.cores]
    for number in sorted({number for number in numbers if numbers.count(number) > 1}):
        yield Problem("cores", f"NPU {number} is given twice")


def npu_problems(npu: NpuSpec) -> Iterator[Problem]:
    """Variables that contradict each other."""
    if npu.launch_blocking and npu.task_queue:
        yield Problem(
            "task_queue",
            f"is {npu.task_queue}, but ASCEND_LAUNCH_BLOCKING=1 turns the queue off; choose 0, or leave "
            "one of them out",
        )
    if npu.launch_blocking and npu.per_stream_queue:
        yield Problem("per_stream_queue", "needs the task queue, which ASCEND_LAUNCH_BLOCKING=1 turns off")
    if npu.task_queue == 0 and npu.per_stream_queue:
        yield Problem("per_stream_queue", "needs the task queue, which TASK_QUEUE_ENABLE=0 turns off")
    execution, event = hccl_seconds(npu)
    if _sets_timeouts(npu) and event <= execution:
        yield Problem(
            "hccl_event_timeout",
            f"must exceed HCCL_EXEC_TIMEOUT ({execution} s), {_said(npu.hccl_event_timeout, event)}",
        )
    devices = npu.visible_devices or ()
    if len(set(devices)) < len(devices):
        yield Problem("visible_devices", f"names an NPU twice: {', '.join(map(str, devices))}")
    if npu.hccl_dfs_config is not None:
        for part in npu.hccl_dfs_config.split(","):
            name, colon, value = part.partition(":")
            if not (name and colon and value and part.isprintable()) or part != part.strip():
                yield Problem("hccl_dfs_config", f"expected name:value with commas between, got {part!r}")


def npu_runtime_problems(runtime: TrainRuntimeSpec | InferRuntimeSpec) -> Iterator[Problem]:
    """What the variables say beside the rest of the runtime.

    A rank that waits longer in HCCL than its process group allows is ended without saying whom it waited for.
    """
    npu = runtime.npu
    if npu is None:
        return
    name, seconds = group_timeout(runtime)
    if _sets_timeouts(npu) and seconds <= (longest := max(hccl_seconds(npu))):
        variable = "HCCL_EVENT_TIMEOUT" if longest == hccl_seconds(npu)[1] else "HCCL_EXEC_TIMEOUT"
        yield Problem(name, f"is {seconds} s, which must exceed {variable} ({longest} s)")
    if runtime.deterministic:
        for name in ("hccl_deterministic", "close_matmul_k_shift"):
            if getattr(npu, name) is False:
                yield Problem(f"npu.{name}", "is False, but deterministic asks for it; leave it None")


def group_timeout(runtime: TrainRuntimeSpec | InferRuntimeSpec) -> tuple[str, int]:
    """The field that limits a rank's wait for the others, and its value in seconds."""
    if isinstance(runtime, TrainRuntimeSpec):
        if runtime.timeout_seconds is not None:
            return "timeout_seconds", runtime.timeout_seconds
        return "timeout_minutes", 60 * runtime.timeout_minutes
    return "parallel.timeout_seconds", runtime.parallel.timeout_seconds


def hccl_seconds(npu: NpuSpec) -> tuple[int, int]:
    """HCCL_EXEC_TIMEOUT and HCCL_EVENT_TIMEOUT in force."""
    execution = HCCL_EXEC_SECONDS if npu.hccl_exec_timeout is None else npu.hccl_exec_timeout
    event = HCCL_EVENT_SECONDS if npu.hccl_event_timeout is None else npu.hccl_event_timeout
    return execution, event


def _sets_timeouts(npu: NpuSpec) -> bool:
    """Whether one of the two is set: what is left to HCCL is not for a spec to answer for."""
    return npu.hccl_exec_timeout is not None or npu.hccl_event_timeout is not None


def _said(given: int | None, seconds: int) -> str:
    return f"got {seconds} s" if given is not None else f"but is unset, {seconds} s in HCCL"

"""What to set on an NPU, beside what MindSpeed-MM's scripts for Wan set."""

from __future__ import annotations

import attrs

from mm_config.specs.npu import Affinity, NpuAffinitySpec, NpuAllocatorSpec, NpuSpec

ADVISED = NpuSpec(
    allocator=NpuAllocatorSpec(expandable_segments=True),
    affinity=NpuAffinitySpec(mode=Affinity.FINE),
    hccl_connect_timeout=1200,
    log_level=3,
    log_to_stdout=False,
)
"""A start for experiments: `replace(SPEC, "runtime.npu", ADVISED)`. Not measured by us."""
DETERMINISTIC = NpuSpec(hccl_deterministic=True, close_matmul_k_shift=True)
"""What repeatable sums need beside torch's own switch; `runtime.deterministic` exports it."""


@attrs.frozen
class Advice:
    """One variable that MindSpeed-MM's scripts set."""

    variable: str
    """The variable."""
    mindspeed: str
    """Their value."""
    unset: str
    """What holds where it is unset."""
    advised: str | None
    """Our value; None to leave it unset."""
    why: str
    """What it is good for."""


ADVICE: tuple[Advice, ...] = (
    Advice(
        "PYTORCH_NPU_ALLOC_CONF",
        "expandable_segments:True",
        "segments of fixed size",
        "expandable_segments:True",
        "memory fragments less",
    ),
    Advice("TASK_QUEUE_ENABLE", "1 (A3: 2)", "1", None, "2 overlaps more and takes more memory: measure it"),
    Advice("COMBINED_ENABLE", "1", "0", None, "helps chains of transposed copies, of which Wan has few"),
    Advice("CPU_AFFINITY_CONF", "1", "0", "2", "torch_npu's documentation recommends it"),
    Advice("MULTI_STREAM_MEMORY_REUSE", "2", "1", None, "torch_npu's own value"),
    Advice("ACLNN_CACHE_LIMIT", "A3: 100000", "10000", None, "one network has few different operators"),
    Advice(
        "HCCL_CONNECT_TIMEOUT",
        "1200",
        "120 s",
        "1200",
        "ranks that load weights are late; torch_npu asks for 300 or more",
    ),
    Advice("ASCEND_GLOBAL_LOG_LEVEL", "3", "CANN's own", "3", "errors alone"),
    Advice("ASCEND_SLOG_PRINT_TO_STDOUT", "0", "0", "0", "stdout is for results"),
)
USELESS = {
    "CUDA_DEVICE_MAX_CONNECTIONS": "no NPU reads it; MindSpeed-MM's scripts set it for a check of Megatron's"
}
"""Variables that do nothing on an NPU."""

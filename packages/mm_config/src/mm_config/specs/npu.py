"""Settings of an Ascend NPU's libraries, which read them from environment variables."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, field


class PageSize(enum.Enum):
    """Sizes of the allocator's physical pages that can be asked for."""

    ONE_GIB = "1g"


@spec("npu-allocator")
class NpuAllocatorSpec:
    """The caching allocator of the NPU's memory (PYTORCH_NPU_ALLOC_CONF); None leaves an option unset."""

    expandable_segments: bool | None = field(default=None, role=EXECUTION)
    """Whether segments grow, which fragments less."""
    max_split_size_mb: int | None = field(default=None, ge=21, role=EXECUTION, unit="MB")
    """Larger blocks are not split; not with expandable segments."""
    garbage_collection_threshold: float | None = field(default=None, gt=0, lt=1, role=EXECUTION)
    """Share of the memory above which unused blocks are given back; not with expandable segments."""
    base_addr_aligned_kb: int | None = field(default=None, ge=0, le=16, role=EXECUTION, unit="kB")
    """Alignment of the blocks' addresses."""
    page_size: PageSize | None = field(default=None, role=EXECUTION)
    """Physical pages of 1 GiB for large blocks."""
    large_segment_size_mb: int | None = field(default=None, ge=11, role=EXECUTION, unit="MB")
    """Size of the segments that large blocks are cut from; pages of 1 GiB override it."""
    roundup_power2_divisions: int | None = field(default=None, ge=1, role=EXECUTION)
    """Sizes between two powers of two, a power of two itself, to which requests are rounded up."""
    multi_stream_lazy_reclaim: bool | None = field(default=None, role=EXECUTION)
    """Whether blocks that several streams used are taken back only when memory is short."""
    pinned_use_background_threads: bool | None = field(default=None, role=EXECUTION)
    """Whether threads of their own look after pinned memory of the host."""
    pinned_mem_register: bool | None = field(default=None, role=EXECUTION)
    """Whether pinned memory is registered with the device; not with expandable pinned segments."""
    pin_memory_expandable_segments: bool | None = field(default=None, role=EXECUTION)
    """Whether segments of pinned memory grow."""


class Affinity(enum.Enum):
    """How threads are bound to the host's cores."""

    OFF = "off"
    COARSE = "coarse"
    """All threads of a process to the cores near its NPU."""
    FINE = "fine"
    """The busiest threads to cores of their own."""


@spec("npu-cores")
class NpuCoresSpec:
    """The host's cores for one NPU."""

    npu: int = field(ge=0, role=EXECUTION)
    """Number of the NPU."""
    first: int = field(ge=0, role=EXECUTION)
    """First core."""
    last: int = field(ge=0, role=EXECUTION)
    """Last core."""


@spec("npu-affinity")
class NpuAffinitySpec:
    """Binding of threads to the host's cores (CPU_AFFINITY_CONF); None leaves an option unset."""

    mode: Affinity | None = field(default=None, role=EXECUTION)
    """How threads are bound; the other options need it."""
    force: bool | None = field(default=None, role=EXECUTION)
    """Whether threads are bound although the process was already given cores."""
    cores: tuple[NpuCoresSpec, ...] = field(default=(), role=EXECUTION)
    """The cores of each NPU; empty for those near it."""
    npu_affine: bool | None = field(default=None, role=EXECUTION)
    """Whether the driver is asked which cores are near an NPU."""
    bind_irq: bool | None = field(default=None, role=EXECUTION)
    """Whether the device's interrupts are bound too."""


class InductorBackend(enum.Enum):
    """What torch.compile's inductor makes kernels with on an NPU."""

    DEFAULT = "default"
    MLIR = "mlir"
    DVM = "dvm"
    ASCENDC = "ascendc"


UNSET_ALLOCATOR = NpuAllocatorSpec()
UNSET_AFFINITY = NpuAffinitySpec()


@spec("npu")
class NpuSpec:
    """What an Ascend NPU's libraries are told by environment variables; None leaves a variable as it is."""

    allocator: NpuAllocatorSpec = field(default=UNSET_ALLOCATOR, role=EXECUTION)
    """PYTORCH_NPU_ALLOC_CONF: the caching allocator."""
    task_queue: int | None = field(default=None, ge=0, le=2, role=EXECUTION)
    """TASK_QUEUE_ENABLE: kernels are launched by a second thread, 0 no, 1 yes, 2 prepared by it too."""
    launch_blocking: bool | None = field(default=None, role=EXECUTION)
    """ASCEND_LAUNCH_BLOCKING: whether every kernel is waited for, to find the one that fails."""
    combined: bool | None = field(default=None, role=EXECUTION)
    """COMBINED_ENABLE: whether chains of operations that make a tensor contiguous are joined."""
    affinity: NpuAffinitySpec = field(default=UNSET_AFFINITY, role=EXECUTION)
    """CPU_AFFINITY_CONF: binding of threads to cores."""
    stream_memory_reuse: int | None = field(default=None, ge=0, le=3, role=EXECUTION)
    """MULTI_STREAM_MEMORY_REUSE: how memory that several streams use is given on, 0 for not early."""
    per_stream_queue: bool | None = field(default=None, role=EXECUTION)
    """PER_STREAM_QUEUE: whether each stream has a task queue of its own (experimental in torch_npu)."""
    aclnn_cache_limit: int | None = field(default=None, ge=1, le=10_000_000, role=EXECUTION, unit="operators")
    """ACLNN_CACHE_LIMIT: prepared operators that CANN keeps on the host."""
    hccl_connect_timeout: int | None = field(default=None, ge=120, le=7200, role=EXECUTION, unit="s")
    """HCCL_CONNECT_TIMEOUT: longest wait for the links between ranks."""
    hccl_exec_timeout: int | None = field(default=None, ge=68, le=17340, role=EXECUTION, unit="s")
    """HCCL_EXEC_TIMEOUT: longest wait of a collective's kernel for other ranks."""
    hccl_event_timeout: int | None = field(default=None, ge=1, role=EXECUTION, unit="s")
    """HCCL_EVENT_TIMEOUT: longest wait for an event; exceeds HCCL_EXEC_TIMEOUT."""
    hccl_buffer_mb: int | None = field(default=None, ge=1, role=EXECUTION, unit="MB")
    """HCCL_BUFFSIZE: memory of the NPU for the data of each group of ranks."""
    hccl_deterministic: bool | None = field(default=None, role=EXECUTION)
    """HCCL_DETERMINISTIC: whether sums over ranks are repeatable; runtime.deterministic sets it."""
    close_matmul_k_shift: bool | None = field(default=None, role=EXECUTION)
    """CLOSE_MATMUL_K_SHIFT: whether matrix products sum in one order; runtime.deterministic sets it."""
    hccl_dfs_config: str | None = field(default=None, min_length=1, role=EXECUTION)
    """HCCL_DFS_CONFIG: CANN's options for finding failures, `name:value` with commas between."""
    hccl_async_error_handling: int | None = field(default=None, ge=0, le=3, role=EXECUTION)
    """TORCH_HCCL_ASYNC_ERROR_HANDLING: what the watchdog does on errors, 0 for nothing."""
    hccl_desync_debug: bool | None = field(default=None, role=EXECUTION)
    """TORCH_HCCL_DESYNC_DEBUG: whether ranks that fell behind are named after a timeout."""
    visible_devices: tuple[int, ...] | None = field(default=None, ge=0, min_length=1, role=LOCATION)
    """ASCEND_RT_VISIBLE_DEVICES: numbers of the NPUs that the processes of this machine see."""
    log_level: int | None = field(default=None, ge=0, le=4, role=EXECUTION)
    """ASCEND_GLOBAL_LOG_LEVEL: CANN's log, 0 debug, 1 info, 2 warning, 3 error, 4 nothing."""
    log_to_stdout: bool | None = field(default=None, role=EXECUTION)
    """ASCEND_SLOG_PRINT_TO_STDOUT: whether CANN's log goes to stdout instead of files."""
    inductor_backend: InductorBackend | None = field(default=None, role=EXECUTION)
    """TORCHINDUCTOR_NPU_BACKEND: what inductor makes kernels with."""
    forbid_cpu_fallback: bool | None = field(default=None, role=EXECUTION)
    """TORCH_NPU_FALLBACK_CPU_DISABLE: whether an operator without a kernel is an error, not slow."""
    silent_error_detection: int | None = field(default=None, ge=0, le=3, role=EXECUTION)
    """NPU_ASD_ENABLE: watch for silent errors of the hardware, 0 off."""


HCCL_EXEC_SECONDS = 1800
"""HCCL_EXEC_TIMEOUT where it is unset, by the text of HCCL's error EI0002."""
HCCL_EVENT_SECONDS = 1868
"""HCCL_EVENT_TIMEOUT where it is unset."""

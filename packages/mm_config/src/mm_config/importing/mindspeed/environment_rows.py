"""Rows of environment variables: no field of a spec; whoever needs them exports them before the run."""

from __future__ import annotations

from mm_config.importing.mindspeed.rows import Row, dead, of_kind, outside

_MEANINGS = {
    "ACLNN_CACHE_LIMIT": "entries of CANN's cache of operators, 1 to 10,000,000 (10,000)",
    "ASCEND_GLOBAL_LOG_LEVEL": "CANN's log from 0 (debug) to 4 (nothing)",
    "ASCEND_LAUNCH_BLOCKING": "1 waits for every kernel",
    "ASCEND_RT_VISIBLE_DEVICES": "NPUs that a process sees",
    "ASCEND_SLOG_PRINT_TO_STDOUT": "1 prints CANN's log",
    "CLOSE_MATMUL_K_SHIFT": "1 makes matrix products repeatable",
    "COMBINED_ENABLE": "1 joins non-contiguous copies",
    "CPU_AFFINITY_CONF": "binds threads to cores: 0 no, 1 coarsely, 2 finely",
    "GLOO_SOCKET_IFNAME": "gloo's network interface",
    "HCCL_BUFFSIZE": "buffer of HCCL in MB",
    "HCCL_CONNECT_TIMEOUT": "seconds that HCCL waits for a connection, 120 to 7200 (120)",
    "HCCL_DETERMINISTIC": "true makes sums over ranks repeatable; runtime.deterministic asks for it",
    "HCCL_EXEC_TIMEOUT": "seconds that HCCL waits for other ranks, 68 to 17340 (1800)",
    "HCCL_SOCKET_IFNAME": "HCCL's network interface",
    "HCCL_WHITELIST_DISABLE": "1 lets every host connect",
    "MULTI_STREAM_MEMORY_REUSE": "memory that streams share: 0, 1 or 2",
    "NPU_ASD_ENABLE": "watches for silent errors, 0 to 3",
    "OMP_NUM_THREADS": "threads of a process on the host",
    "OOM_SNAPSHOT_ENABLE": "1 writes a snapshot where memory runs out",
    "OOM_SNAPSHOT_PATH": "folder of those snapshots",
    "PYTORCH_NPU_ALLOC_CONF": "the NPU's allocator, such as expandable_segments:True",
    "TASK_QUEUE_ENABLE": "hands kernels over in a queue: 0, 1 or 2",
    "TOKENIZERS_PARALLELISM": "threads of tokenizers",
    "TP_SOCKET_IFNAME": "TensorPipe's network interface",
}
_SAMPLES = {
    "ACLNN_CACHE_LIMIT": "100000",
    "CPU_AFFINITY_CONF": "1",
    "HCCL_CONNECT_TIMEOUT": "1200",
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
}

ENVIRONMENT: tuple[Row, ...] = of_kind(
    "environment variable",
    dead("CUDA_DEVICE_MAX_CONNECTIONS", "only wants to please Megatron; an NPU has no such thing", "2", "1"),
    dead("NON_MEGATRON", "chooses MindSpeed-MM's own start for native YAML files", "true"),
    *(
        outside(name, f"export it yourself where it is needed: {meaning}", _SAMPLES.get(name, "1"))
        for name, meaning in _MEANINGS.items()
    ),
)

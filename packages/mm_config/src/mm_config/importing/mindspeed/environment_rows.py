"""Rows of environment variables: `runtime.npu` has what an NPU reads, whoever needs the rest exports it."""

from __future__ import annotations

from typing import Any

from mm_config.importing.rows import Row, dead, mapped, of_kind, outside
from mm_config.importing.values import ReadValue
from mm_config.npu.texts import Form
from mm_config.npu.variables import VARIABLES

_MEANINGS = {
    "GLOO_SOCKET_IFNAME": "gloo's network interface",
    "HCCL_SOCKET_IFNAME": "HCCL's network interface",
    "HCCL_WHITELIST_DISABLE": "1 lets every host connect",
    "OMP_NUM_THREADS": "threads of a process on the host",
    "OOM_SNAPSHOT_ENABLE": "1 writes a snapshot where memory runs out",
    "OOM_SNAPSHOT_PATH": "folder of those snapshots",
    "TOKENIZERS_PARALLELISM": "threads of tokenizers",
    "TP_SOCKET_IFNAME": "TensorPipe's network interface",
}


def _as_text(form: Form) -> ReadValue:
    """A variable's text; the book has already made a number of it where it is one."""

    def read(value: Any) -> Any:
        if any(mark in str(value) for mark in "$`~"):
            raise ValueError("only a run would know it; write its value")
        return form.read(str(value))

    return read


ENVIRONMENT: tuple[Row, ...] = of_kind(
    "environment variable",
    dead("CUDA_DEVICE_MAX_CONNECTIONS", "only wants to please Megatron; an NPU has no such thing"),
    dead("NON_MEGATRON", "chooses MindSpeed-MM's own start for native YAML files"),
    *(
        mapped(variable.name, f"runtime.npu.{variable.field}", _as_text(variable.form))
        for variable in VARIABLES
    ),
    *(
        outside(name, f"export it yourself where it is needed: {meaning}")
        for name, meaning in _MEANINGS.items()
    ),
)

"""Writes tests/npu_schema/schemas.txt: the `npu::` operators that the project may call, from the wheel.

The wheel prints them itself, over the stub of CANN, so `build.py` has to have run:

    python tests/npu_standin/write_schemas.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "npu_schema" / "schemas.txt"

NAMES = (
    "npu_fusion_attention",
    "npu_fusion_attention_grad",
    "npu_fusion_attention_v2",
    "npu_fusion_attention_grad_v2",
    "npu_fusion_attention_v3",
    "npu_fusion_attention_grad_v3",
    "npu_prompt_flash_attention",
    "npu_fused_infer_attention_score",
    "npu_rms_norm",
    "npu_rms_norm_backward",
    "npu_rotary_mul",
    "npu_rotary_mul_backward",
    "npu_gelu",
    "npu_gelu_backward",
    "fast_gelu",
    "npu_fast_gelu",
    "npu_fast_gelu_backward",
    "npu_silu",
    "npu_silu_backward",
    "npu_swiglu",
    "npu_swiglu_backward",
    "npu_layer_norm_eval",
    "npu_grouped_matmul",
    "npu_dtype_cast",
    "npu_dtype_cast_",
    "npu_dtype_cast_backward",
    "_npu_dtype_cast",
    "_npu_dtype_cast_backward",
    "npu_format_cast",
    "npu_format_cast_",
    "_npu_format_cast",
    "get_npu_format",
)
"""Operators of a Wan path, those that torch_npu's derivatives call, and those that could be confused."""


def write() -> None:
    """Run inside the stand-in: reads the schemas and writes the snapshot, in the order of NAMES."""
    import torch

    found = {str(schema): schema.name for schema in torch._C._jit_get_all_schemas()}
    of = {name: sorted(text for text, full in found.items() if full == f"npu::{name}") for name in NAMES}
    if absent := [name for name, texts in of.items() if not texts]:
        raise SystemExit(f"torch_npu has no {', '.join(absent)}")
    header = f"# torch_npu {torch_npu_version()}: written by tests/npu_standin/write_schemas.py\n"
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(header + "".join(f"{text}\n" for texts in of.values() for text in texts))


def torch_npu_version() -> str:
    from importlib.metadata import version

    return version("torch_npu")


if __name__ == "__main__":
    if os.environ.get("NPU_STANDIN_DEVICES"):
        write()
    else:
        sys.path.insert(0, str(ROOT))
        from tests.npu_standin import build

        subprocess.run([sys.executable, __file__], env=build.environment(os.environ), check=True)

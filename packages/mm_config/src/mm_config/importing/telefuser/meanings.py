"""What members of TeleFuser's enums are in our specs."""

from __future__ import annotations

from mm_config.specs.parallel import AttentionImpl, CompileBackend, CompileMode
from mm_config.specs.serving import ApproximateAttention, QuantFormat, Residency, SparsePattern

ATTENTION = {
    "TORCH_SDPA": AttentionImpl.SDPA,
    "TORCH_CUDNN": AttentionImpl.CUDNN,
    "FLASH_ATTN_2": AttentionImpl.FLASH_2,
    "FLASH_ATTN_3": AttentionImpl.FLASH_3,
}
APPROXIMATE = {
    "FLASH_ATTN_4": ApproximateAttention.FLASH_4,
    "SAGE_ATTN_2_8_8": ApproximateAttention.SAGE,
    "SAGE_ATTN_2_8_16": ApproximateAttention.SAGE,
    "SAGE_ATTN_2_8_8_SM90": ApproximateAttention.SAGE,
}
SPARSE = {"RADIAL_ATTN": SparsePattern.RADIAL, "LOCAL_SPARSE_ATTN": SparsePattern.LOCAL}
OFFLOAD = {
    "NO_CPU_OFFLOAD": Residency.RESIDENT,
    "MODEL_CPU_OFFLOAD": Residency.SWAP,
    "SEQUENTIAL_CPU_OFFLOAD": Residency.LAYERWISE,
    "ASYNC_CPU_OFFLOAD": Residency.LAYERWISE,
}
QUANT = {
    "FP8": QuantFormat.FP8,
    "INT8": QuantFormat.INT8,
    "MXFP8": QuantFormat.MXFP8,
    "MXFP6": QuantFormat.MXFP6,
    "MXFP4": QuantFormat.MXFP4,
    "NVFP4": QuantFormat.NVFP4,
    "BNB_NF4": QuantFormat.NF4,
    "TORCHAO_FP8": QuantFormat.FP8,
}
BACKENDS = {backend.value: backend for backend in CompileBackend}
MODES = {mode.value: mode for mode in CompileMode}

"""What an Ascend NPU needs before the first tensor is moved to it."""

import os
from importlib.util import find_spec

import torch

from mm_config.errors import UserError
from mm_config.npu.refused import refused


def prepare() -> None:
    """Sets what torch_npu would otherwise decide by itself; without effect the second time.

    Raises:
        UserError: The environment hides errors or changes torch, see `refused`.
    """
    if found := list(refused(os.environ)):
        raise UserError(found)
    # With either of them on, a module's convolutions are cast to private formats as they are moved, on some
    # chips through float16.
    torch.npu.set_compile_mode(jit_compile=False)  # type: ignore[attr-defined]
    torch.npu.config.allow_internal_format = False  # type: ignore[attr-defined]
    # It is on for convolutions unless somebody says otherwise.
    round_factors(False)


def round_factors(allowed: bool) -> None:
    """Whether products and convolutions of float32 may round their factors to 10 bits (HF32)."""
    torch.npu.matmul.allow_hf32 = allowed  # type: ignore[attr-defined]
    torch.npu.conv.allow_hf32 = allowed  # type: ignore[attr-defined]


def refuse_beside_cuda() -> None:
    """torch_npu and a torch for CUDA exclude each other: which device there is depends on the import's luck.

    Raises:
        UserError: Both are installed.
    """
    if torch.version.cuda and find_spec("torch_npu"):
        raise UserError(
            f"torch_npu is installed beside torch {torch.__version__}, which is built for CUDA; they exclude "
            "each other: uninstall torch_npu, or install torch's CPU build for the NPU"
        )

"""A spec's floating-point formats as torch's."""

import torch

from mm_config.specs import Dtype


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """`Dtype.BFLOAT16` -> `torch.bfloat16`."""
    return getattr(torch, dtype.value)

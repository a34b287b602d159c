"""Forms that PyTorch's compiler makes of the plain ones."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


@cache
def kernel_of(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The plain form as one kernel forward and, usually, one backward; compiled at its first call.

    Its backward pass keeps inputs and computes the rest again. New sizes compile once more, then for any.
    """
    return torch.compile(reference, fullgraph=True)

"""Forms that PyTorch's compiler makes of the plain ones."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def as_kernel(reference: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """A plain form as one kernel forward and, usually, one backward; compiled at its first call.

    Its backward pass keeps inputs and computes the rest again. New sizes compile once more, then for any.
    In a network that is compiled whole, the compiler sees the plain form and joins it with its neighbours.
    """
    form = reference if torch.compiler.is_compiling() else _compiled(reference)
    return form(*arguments)


@cache
def _compiled(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(reference, fullgraph=True)

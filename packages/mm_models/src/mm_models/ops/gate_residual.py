"""A residual branch, gated by the timestep."""

import torch
from torch import Tensor

from mm_models.ops.modulate import spread
from mm_models.ops.widening import widened


def reference(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Tensor:
    """x + gate * branch, in float32; the result has x's dtype.

    Args:
        x_BSD: The residual stream.
        branch_BSD: What a layer adds to it.
        gate_UD: Float32 rows, as in `modulate`.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
    """
    return torch.addcmul(widened(x_BSD), widened(branch_BSD), spread(gate_UD, rows_BS)).type_as(x_BSD)

"""Adaptive layer norm: the timestep scales and shifts what is normed.

Shifts and scales are float32 rows `[U, D]`: one per sample, or one per distinct timestep with the row of each
token. A row is spread over its tokens only where it is used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mm_models.ops.widening import widened


def reference(
    x_BSD: Tensor, shift_UD: Tensor, scale_UD: Tensor, eps: float, rows_BS: Tensor | None = None
) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, in float32; the result has x's dtype.

    Args:
        x_BSD: The residual stream.
        shift_UD: Float32 rows.
        scale_UD: Float32 rows.
        eps: Of the norm.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
    """
    normed = F.layer_norm(widened(x_BSD), x_BSD.shape[-1:], eps=eps)
    return torch.addcmul(spread(shift_UD, rows_BS), normed, spread(1 + scale_UD, rows_BS)).type_as(x_BSD)


def spread(row_UD: Tensor, rows_BS: Tensor | None) -> Tensor:
    """`[U, D]` -> `[B, 1, D]`, or each token's row as `[B, S, D]`."""
    return row_UD.unsqueeze(1) if rows_BS is None else row_UD[rows_BS]

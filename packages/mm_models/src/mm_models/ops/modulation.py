"""Adaptive layer norm: the timestep shifts, scales and gates each residual branch, in float32.

Shifts, scales and gates are rows `[U, D]`: one per sample, or one per distinct timestep with the row of each
token. A row is spread over its tokens only where it is used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def modulate(
    x_BSD: Tensor, shift_UD: Tensor, scale_UD: Tensor, eps: float, rows_BS: Tensor | None = None
) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, in x's dtype.

    Args:
        x_BSD: The residual stream.
        shift_UD: Float32 rows.
        scale_UD: Float32 rows.
        eps: Of the norm.
        rows_BS: The row of each token; None where sample b uses row b for all its tokens.
    """
    normed = F.layer_norm(x_BSD.float(), x_BSD.shape[-1:], eps=eps)
    return torch.addcmul(_spread(shift_UD, rows_BS), normed, _spread(1 + scale_UD, rows_BS)).type_as(x_BSD)


def gated_add(x_BSD: Tensor, branch_BSD: Tensor, gate_UD: Tensor, rows_BS: Tensor | None = None) -> Tensor:
    """x + gate * branch, in x's dtype; gates are float32 rows, as in `modulate`."""
    return torch.addcmul(x_BSD.float(), branch_BSD.float(), _spread(gate_UD, rows_BS)).type_as(x_BSD)


def _spread(row_UD: Tensor, rows_BS: Tensor | None) -> Tensor:
    """`[U, D]` -> `[B, 1, D]`, or each token's row as `[B, S, D]`."""
    return row_UD.unsqueeze(1) if rows_BS is None else row_UD[rows_BS]

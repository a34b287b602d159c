"""Adaptive layer norm: the timestep shifts, scales and gates each residual branch, in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor


def modulate(x_BSD: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift; shift and scale are float32 and broadcast against `[B, S, D]`."""
    normed = F.layer_norm(x_BSD.float(), x_BSD.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale).type_as(x_BSD)


def gated_add(x_BSD: Tensor, branch_BSD: Tensor, gate: Tensor) -> Tensor:
    """x + gate * branch; gate is float32 and broadcasts against `[B, S, D]`."""
    return torch.addcmul(x_BSD.float(), branch_BSD.float(), gate).type_as(x_BSD)

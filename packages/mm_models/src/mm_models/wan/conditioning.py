"""What conditions Wan's blocks: the timestep as modulation, the caption as tokens.

Shapes: B batch, S tokens, L text tokens, D model width, U rows of modulation.
"""

import math

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_models.ops.layers import Float32Linear


@attrs.frozen
class Modulation:
    """The timestep's say in every block, kept small: one row per sample or per distinct timestep."""

    time_UD: Tensor
    """Float32 timestep features, for the output layer."""
    blocks_U6D: Tensor
    """Float32 shift, scale and gate of self-attention and of the feed-forward network."""
    rows_BS: Tensor | None
    """The row of each token; None where sample b uses row b for all its tokens."""

    def split(self, table: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Adds a learnt table to rows and gives each of its N entries, broadcastable to `[B, S, D]`.

        Args:
            table: `[1, N, D]`.
            time: `[U, N, D]` or `[U, 1, D]`.
        """
        entries = (table.float() + time).unbind(1)
        if self.rows_BS is None:
            return tuple(entry.unsqueeze(1) for entry in entries)
        return tuple(entry[self.rows_BS] for entry in entries)


class TimeEmbedder(nn.Module):
    """Sinusoidal features of the timestep, then two linear layers, all in float32."""

    def __init__(self, freq_dim: int, dim: int) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.linear_1 = Float32Linear(freq_dim, dim)
        self.linear_2 = Float32Linear(dim, dim)

    def forward(self, timestep_U: Tensor) -> Tensor:
        """`[U]` timesteps in [0, 1000] -> `[U, D]` float32."""
        half = self.freq_dim // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timestep_U.device) / half
        angles = timestep_U.float()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return self.linear_2(F.silu(self.linear_1(features)))


class TextEmbedder(nn.Module):
    """Two linear layers from the text encoder's width to the model's."""

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(text_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, text_BLT: Tensor) -> Tensor:
        """`[B, L, text_dim]` -> `[B, L, D]`; padding becomes the biases' value and Wan attends to it."""
        text_BLT = text_BLT.to(self.linear_1.weight.dtype)
        return self.linear_2(F.gelu(self.linear_1(text_BLT), approximate="tanh"))


class ConditionEmbedder(nn.Module):
    """Timesteps to modulation, text features to tokens."""

    def __init__(self, freq_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()
        self.time_embedder = TimeEmbedder(freq_dim, dim)
        self.time_proj = Float32Linear(dim, 6 * dim)
        self.text_embedder = TextEmbedder(text_dim, dim)

    def forward(self, timestep: Tensor, text_BLT: Tensor) -> tuple[Modulation, Tensor]:
        """Conditions of one forward pass.

        Args:
            timestep: `[B]`, or `[B, S]` where tokens differ (image conditions are at timestep 0).
            text_BLT: The text encoder's features.
        """
        rows_BS = None
        if timestep.ndim == 2:
            timestep, rows_BS = timestep.unique(return_inverse=True)
        time_UD = self.time_embedder(timestep)
        blocks_U6D = self.time_proj(F.silu(time_UD)).unflatten(-1, (6, -1))
        return Modulation(time_UD, blocks_U6D, rows_BS), self.text_embedder(text_BLT)

"""What conditions Wan's blocks: the timestep as modulation, the caption and given images as tokens.

Shapes: B batch, S tokens, L text tokens, I image tokens, K image features, D model width, U rows of
modulation.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm_config.specs import WanTransformerSpec
from mm_models.ops.layers import Float32LayerNorm, Float32Linear
from mm_models.wan.feed_forward import FeedForward


class Modulation(NamedTuple):
    """The timestep's say in every block, kept small: one row per sample or per distinct timestep."""

    time_UD: Tensor
    """Float32 timestep features, for the output layer."""
    blocks_U6D: Tensor
    """Float32 shift, scale and gate of self-attention and of the feed-forward network."""
    rows_BS: Tensor | None
    """The row of each token; None where sample b uses row b for all its tokens."""

    def of_block(self, table_16D: Tensor) -> tuple[Tensor, ...]:
        """`[U, D]` rows of a block's six entries, with what the block has learnt added."""
        return (table_16D.float() + self.blocks_U6D).unbind(1)

    def of_output(self, table_12D: Tensor) -> tuple[Tensor, ...]:
        """`[U, D]` rows of the output layer's shift and scale."""
        return (table_12D.float() + self.time_UD.unsqueeze(1)).unbind(1)


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


class ImageEmbedder(nn.Module):
    """Image features to the model's width; several images are told apart by a learnt position table."""

    def __init__(self, image_dim: int, dim: int, positions: int | None) -> None:
        super().__init__()
        self.pos_embed = None if positions is None else nn.Parameter(torch.empty(1, positions, image_dim))
        # Wan's authors leave these two norms at PyTorch's epsilon; the spec's is for all others.
        self.norm1 = Float32LayerNorm(image_dim)
        self.ff = FeedForward(image_dim, image_dim, dim, approximate="none")
        self.norm2 = Float32LayerNorm(dim)

    def forward(self, image_BIK: Tensor) -> Tensor:
        """`[B, I, image_dim]` -> `[B, I, D]` in the weights' dtype."""
        image_BIK = image_BIK.float()
        if self.pos_embed is not None:
            image_BIK = image_BIK + self.pos_embed.float()
        normed = self.norm1(image_BIK).to(next(self.ff.parameters()).dtype)
        return self.norm2(self.ff(normed))


class ConditionEmbedder(nn.Module):
    """Timesteps to modulation, text and image features to tokens."""

    def __init__(self, spec: WanTransformerSpec) -> None:
        super().__init__()
        dim = spec.hidden_size
        self.time_embedder = TimeEmbedder(spec.freq_dim, dim)
        self.time_proj = Float32Linear(dim, 6 * dim)
        self.text_embedder = TextEmbedder(spec.text_dim, dim)
        self.image_embedder = (
            None if spec.image_dim is None else ImageEmbedder(spec.image_dim, dim, spec.image_positions)
        )

    def forward(
        self, timestep: Tensor, text_BLT: Tensor, image_BIK: Tensor | None, tokens: int
    ) -> tuple[Modulation, Tensor, Tensor | None]:
        """Modulation, text tokens and image tokens of one forward pass.

        Args:
            timestep: `[B]`, `[B, T]` where latent frames differ (a clean one is at timestep 0), or `[B, S]`
                where tokens do.
            text_BLT: The text encoder's features.
            image_BIK: The image encoder's features, where the network has an image branch.
            tokens: S.
        """
        rows_BS = None
        if timestep.ndim == 2:
            timestep, rows_BS = rows_of_tokens(timestep, tokens)
        time_UD = self.time_embedder(timestep)
        blocks_U6D = self.time_proj(F.silu(time_UD)).unflatten(-1, (6, -1))
        image_BID = None if self.image_embedder is None else self.image_embedder(image_BIK)
        return Modulation(time_UD, blocks_U6D, rows_BS), self.text_embedder(text_BLT), image_BID


def rows_of_tokens(timestep: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """`[U]` timesteps, and `[B, S]`: which of them each token has.

    Latent frames have a row each. Where tokens are told apart, distinct timesteps have one: how many these
    are, a device is asked and waited for.
    """
    columns = timestep.shape[1]
    if columns == tokens:
        return timestep.unique(return_inverse=True)
    rows_BT = torch.arange(timestep.numel(), device=timestep.device).view_as(timestep)
    return timestep.flatten(), rows_BT.repeat_interleave(tokens // columns, dim=1)

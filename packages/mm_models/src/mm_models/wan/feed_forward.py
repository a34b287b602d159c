"""The feed-forward network of Wan's blocks and of its image embedder."""

import torch.nn.functional as F
from torch import Tensor, nn


class GeluProjection(nn.Module):
    """A linear layer and GELU, in its tanh form or exact."""

    def __init__(self, dim: int, hidden_dim: int, approximate: str) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden_dim)
        self.approximate = approximate

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, dim]` -> `[B, S, hidden_dim]`."""
        return F.gelu(self.proj(x_BSD), approximate=self.approximate)


class FeedForward(nn.Module):
    """Two linear layers with GELU between; `net` has an empty place so that names equal diffusers'."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, approximate: str) -> None:
        """Its sizes, and the form of GELU: `tanh` in the blocks, `none` (exact) in the image embedder."""
        super().__init__()
        projection = GeluProjection(dim, hidden_dim, approximate)
        self.net = nn.ModuleList([projection, nn.Identity(), nn.Linear(hidden_dim, out_dim)])

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, dim]` -> `[B, S, out_dim]`."""
        return self.net[2](self.net[0](x_BSD))

"""The feed-forward network of Wan's blocks and of its image embedder."""

from torch import Tensor, nn

from mm_models.ops.gelu import exact
from mm_models.ops.gelu_linear import gelu_linear


class Projection(nn.Module):
    """A linear layer, one level down so that names equal diffusers'."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden_dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, dim]` -> `[B, S, hidden_dim]`."""
        return self.proj(x_BSD)


class FeedForward(nn.Module):
    """Two linear layers with GELU between; `net` has an empty place so that names equal diffusers'."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, approximate: str) -> None:
        """Its sizes, and the form of GELU: `tanh` in the blocks, `none` (exact) in the image embedder."""
        super().__init__()
        self.is_exact = approximate == "none"
        self.net = nn.ModuleList([Projection(dim, hidden_dim), nn.Identity(), nn.Linear(hidden_dim, out_dim)])

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, dim]` -> `[B, S, out_dim]`."""
        project, _, out = self.net
        hidden_BSF = project(x_BSD)
        return out(exact(hidden_BSF)) if self.is_exact else gelu_linear(hidden_BSF, out)

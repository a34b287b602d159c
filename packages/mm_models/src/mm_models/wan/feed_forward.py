"""The feed-forward network of Wan's blocks and of its image embedder."""

from torch import Tensor, nn

from mm_models.ops.gelu import ExactGelu
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
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, approximate: str) -> None:
        """Its sizes, and the form of GELU: `tanh` in the blocks, `none` (exact) in the image embedder."""
        super().__init__()
        activation = nn.GELU("tanh") if approximate == "tanh" else ExactGelu()
        self.net = nn.ModuleList([Projection(dim, hidden_dim), activation, nn.Linear(hidden_dim, out_dim)])

    def forward(self, x_BSD: Tensor) -> Tensor:
        """`[B, S, dim]` -> `[B, S, out_dim]`."""
        project, activation, out = self.net
        hidden_BSF = project(x_BSD)
        if isinstance(activation, nn.GELU) and isinstance(out, nn.Linear):
            return gelu_linear(hidden_BSF, activation, out)
        return out(activation(hidden_BSF))

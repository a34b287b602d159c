"""Layers whose arithmetic is wider than their parameters' dtype."""

import torch.nn.functional as F
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear layer computed in float32; the output is float32."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` -> `[..., out_features]` float32."""
        bias = None if self.bias is None else self.bias.float()
        return F.linear(input.float(), self.weight.float(), bias)


class InputLinear(nn.Linear):
    """A linear layer computed in its input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` -> `[..., out_features]` in the input's dtype."""
        bias = None if self.bias is None else self.bias.type_as(input)
        return F.linear(input, self.weight.type_as(input), bias)


class Float32LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32; the output has the input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises the last axis."""
        normed = F.layer_norm(
            input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return normed.type_as(input)

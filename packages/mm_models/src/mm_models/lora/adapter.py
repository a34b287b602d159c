"""What an adapter is: two thin matrices beside each adapted layer, and sometimes full differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from torch import Tensor

from mm_config.schema import Problem, UserError
from mm_config.specs import Expert

HIGH_NOISE, LOW_NOISE = "transformer", "transformer_2"
"""Diffusers' names of both experts; adapters whose keys name none are under the first."""


@attrs.frozen(eq=False)
class LowRank:
    """The change of one layer: weight + strength * scale * up @ down (Hu et al. 2021, LoRA).

    With a magnitude (Liu et al. 2024, DoRA) it is `weight + strength * (ratio * changed - weight)`, where
    `changed = weight + scale * up @ down` and `ratio` is the magnitude by the norms of `changed`.
    """

    down: Tensor
    """`[rank, in]`, called `lora_A` or `lora_down`; a convolution's kernel axes follow."""
    up: Tensor
    """`[out, rank]`, called `lora_B` or `lora_up`; axes of size 1 may follow."""
    alpha: float
    """The scale times the rank, or times its root."""
    rslora: bool = False
    """Whether alpha is divided by the root of the rank instead of the rank (Kalajdzievski 2023)."""
    bias: Tensor | None = None
    """`[out]`, added to the layer's bias times strength and scale."""
    magnitude: Tensor | None = None
    """`[out, 1, ...]` or `[1, in, 1, ...]`: the norms over all other axes that DoRA gives the weight."""

    @property
    def rank(self) -> int:
        """The width between both matrices."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What the product is multiplied by at strength 1."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def by_columns(self) -> bool:
        """Whether DoRA's norms are those of the weight's columns, not of its rows."""
        return self.magnitude is not None and self.magnitude.shape[1] != 1

    @property
    def more(self) -> Mapping[str, Tensor]:
        """What it has beside both matrices, by PEFT's names and in its shapes; of columns, by LyCORIS's."""
        parts = {} if self.bias is None else {"lora_B.bias": self.bias}
        if self.magnitude is None:
            return parts
        if self.by_columns:
            return {**parts, "dora_scale": self.magnitude}
        by_row = self.magnitude.transpose(0, 1) if self.magnitude.ndim > 2 else self.magnitude.flatten()
        return {**parts, "lora_magnitude_vector": by_row}

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes."""
        return (self.up.shape[0], *self.down.shape[1:])

    def change(self, strength: float, weight: Tensor) -> Tensor:
        """What is added to a weight, which is whole, computed in float32 on its device."""
        if self.magnitude is None:
            return self._product(strength * self.scale, weight.device)
        changed = self._product(self.scale, weight.device).add_(weight)
        return changed.mul_(self._ratio(changed)).sub_(weight).mul_(strength)

    def ratio(self, weight: Tensor) -> Tensor:
        """What DoRA multiplies a weight with the product added by, in the magnitude's shape and float32."""
        return self._ratio(self._product(self.scale, weight.device).add_(weight))

    def _ratio(self, changed: Tensor) -> Tensor:
        assert self.magnitude is not None
        axes = [axis for axis, size in enumerate(self.magnitude.shape) if size == 1]
        # A row of zeros has no direction to scale; without the bound it would become NaN.
        norms = torch.linalg.vector_norm(changed, dim=axes, keepdim=True).clamp_min(
            torch.finfo(changed.dtype).eps
        )
        return self.magnitude.to(changed) / norms

    def _product(self, factor: float, device: torch.device) -> Tensor:
        down = self.down.to(device, torch.float32).flatten(1)
        up = self.up.to(device, torch.float32).flatten(1)
        return (up @ down).mul_(factor).view(self.weight_shape)


@attrs.frozen(eq=False)
class Adapter:
    """The change of one network, by our names; nothing in it knows the network."""

    layers: Mapping[str, LowRank]
    """By the layers' names, such as `blocks.0.attn1.to_q`."""
    differences: Mapping[str, Tensor] = attrs.field(factory=dict)
    """Full differences by the parameters' names, which some published adapters have beside the layers."""


@attrs.frozen(eq=False)
class Addition:
    """An adapter and how much of it is added."""

    adapter: Adapter
    """What is added."""
    strength: float = 1.0
    """Its factor; 0 adds nothing."""


@attrs.frozen(eq=False)
class StoredAdapters:
    """The adapters of one file: of one network, or of both experts."""

    path: Path
    """The file, or the folder of a checkpoint."""
    style: str
    """Whose keys it has: `diffusers`, `peft`, `wan`, `kohya`, or `dcp` for our checkpoint."""
    experts: Mapping[str, Adapter]
    """By HIGH_NOISE and LOW_NOISE."""

    def of(self, expert: Expert) -> Adapter:
        """The adapter of an expert; one whose keys name no expert, or just `transformer`, serves any.

        Raises:
            UserError: It was made for the other expert, or for two where there is one.
        """
        if len(self.experts) == 1 and LOW_NOISE not in self.experts:
            return self.experts[HIGH_NOISE]
        wanted = {Expert.HIGH_NOISE: HIGH_NOISE, Expert.LOW_NOISE: LOW_NOISE, Expert.SINGLE: ""}[expert]
        if wanted in self.experts:
            return self.experts[wanted]
        held = "both experts" if len(self.experts) == 2 else "the low-noise expert (transformer_2) alone"
        asked = "the high-noise expert" if wanted else "a single network"
        raise UserError(Problem(str(self.path), f"holds an adapter of {held}; one for {asked} is wanted"))

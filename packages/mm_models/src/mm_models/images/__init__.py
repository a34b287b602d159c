"""Image encoders: given frames to features for the image branch of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm_config.schema import tag_of
from mm_config.specs import ImageEncoderSpec
from mm_models.registered import builder_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mm_config.options import Locations


class ImageEncoder(Protocol):
    """What every image encoder does."""

    def encode(self, frames_BCHW: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [-1, 1], of any size -> `[B, image_tokens, image_dim]` float32."""
        ...


def build_image_encoder(
    spec: ImageEncoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
) -> ImageEncoder:
    """The image encoder of a spec, with its weights.

    Raises:
        UserError: There is none for the spec's class, or its weights can't be found or don't fit.
    """
    return builder_of("mm.image_encoders", tag_of(spec))(spec, device, locations)

"""Image encoders: given frames to features for the image branch of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm_config.errors import UserError
from mm_config.schema import tag_of
from mm_config.specs.encoders import ClipImageEncoderSpec
from mm_config.specs.kinds import ImageEncoderSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mm_config.locations import Locations


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
    if isinstance(spec, ClipImageEncoderSpec):
        from mm_models.images.clip import ClipImageEncoder

        return ClipImageEncoder(spec, device, locations)
    raise UserError(f"no image encoder is known for {tag_of(spec)!r}; known: clip-image-encoder")

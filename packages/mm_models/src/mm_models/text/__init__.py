"""Text encoders: captions to features that are zero beyond each caption's length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm_config.errors import UserError
from mm_config.schema import tag_of
from mm_config.specs.encoders import HashedTextEncoderSpec, Umt5TextEncoderSpec
from mm_config.specs.kinds import TextEncoderSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mm_config.locations import Locations


class TextEncoder(Protocol):
    """What every text encoder does."""

    def encode(self, captions: list[str]) -> Tensor:
        """`[B, max_tokens, text_dim]` float32; "" gives the features of no caption, for guidance."""
        ...


def build_text_encoder(
    spec: TextEncoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
) -> TextEncoder:
    """The text encoder of a spec, with its weights.

    Raises:
        UserError: There is none for the spec's class, or its weights can't be found or don't fit.
    """
    if isinstance(spec, HashedTextEncoderSpec):
        from mm_models.text.hashed import HashedTextEncoder

        return HashedTextEncoder(spec, device)
    if isinstance(spec, Umt5TextEncoderSpec):
        from mm_models.text.umt5 import Umt5TextEncoder

        return Umt5TextEncoder(spec, device, locations)
    raise UserError(
        f"no text encoder is known for {tag_of(spec)!r}; known: hashed-text-encoder, umt5-text-encoder"
    )

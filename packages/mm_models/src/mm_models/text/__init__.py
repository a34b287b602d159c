"""Text encoders: captions to features that are zero beyond each caption's length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm_config.schema import tag_of
from mm_config.specs import TextEncoderSpec, Umt5TextEncoderSpec
from mm_models.registered import builder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import torch
    from torch import Tensor, nn

    from mm_config.options import Locations


class TextEncoder(Protocol):
    """What every text encoder does."""

    def encode(self, captions: list[str]) -> Tensor:
        """`[B, max_tokens, text_dim]` float32; "" gives the features of no caption, for guidance."""
        ...


class WaitingTextEncoder(TextEncoder, Protocol):
    """One whose parameters may come block by block."""

    network: nn.Module
    """What encodes."""
    blocks: str
    """Name of the module in it whose children are its blocks."""
    fill: Callable[[Collection[str]], None]
    """Reads some of the parameters, by their names."""


def build_text_encoder(
    spec: TextEncoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
) -> TextEncoder:
    """The text encoder of a spec, with its weights.

    Raises:
        UserError: There is none for the spec's class, or its weights can't be found or don't fit.
    """
    return builder_of("mm.text_encoders", tag_of(spec))(spec, device, locations)


def waiting_text_encoder(
    spec: Umt5TextEncoderSpec, device: torch.device | str, locations: Locations | None = None
) -> WaitingTextEncoder:
    """The text encoder of a spec whose parameters have no memory yet.

    Raises:
        UserError: As `build_text_encoder`.
    """
    return builder_of("mm.text_encoders", tag_of(spec))(spec, device, locations, waits=True)


def too_long(
    spec: TextEncoderSpec, captions: Sequence[str], locations: Locations | None = None
) -> dict[str, str]:
    """The captions that a spec's text encoder refuses, each with why, found without its weights.

    None where the encoder's class, of another package, has no static `too_long` that tells.

    Raises:
        UserError: There is no encoder for the spec's class, or its tokenizer can't be found or read.
    """
    builder = builder_of("mm.text_encoders", tag_of(spec))
    tell = getattr(builder, "too_long", None)
    return tell(spec, captions, locations) if tell is not None else {}

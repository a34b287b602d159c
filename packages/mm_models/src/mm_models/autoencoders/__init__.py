"""Video autoencoders: pixels to normalised latents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mm_config.schema import tag_of
from mm_config.specs import AutoencoderSpec
from mm_models.registered import builder_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mm_config.options import Locations


class Autoencoder(Protocol):
    """What every autoencoder does; latents are float32 with mean 0 and standard deviation 1 per channel."""

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """`[B, 3, 1 + kn, H, W]` in [-1, 1] -> latents `[B, C, 1 + n, H / stride, W / stride]`."""
        ...

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Latents -> video of the shape that they were made of, about [-1, 1]."""
        ...


def build_autoencoder(
    spec: AutoencoderSpec, device: torch.device | str = "cpu", locations: Locations | None = None
) -> Autoencoder:
    """The autoencoder of a spec, with its weights.

    Raises:
        UserError: There is none for the spec's class, or its weights can't be found or don't fit.
    """
    return builder_of("mm.autoencoders", tag_of(spec))(spec, device, locations)

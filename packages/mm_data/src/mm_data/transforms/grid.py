"""Which numbers of frames and pixels a network takes."""

from __future__ import annotations

import attrs


@attrs.frozen
class Grid:
    """Clips have `frames * k + first` frames, and sides that are multiples of `pixels`."""

    frames: int = 4
    """Between two numbers of frames: those of a latent frame, times the latent frames of a patch."""
    first: int = 1
    """The least number of frames."""
    pixels: int = 16
    """Of one token along height and along width."""


WAN = Grid()
"""That of Wan's autoencoder with patches of 1 x 2 x 2, the only kind that there is today."""

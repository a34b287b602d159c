"""What a network makes of the sizes of clips."""

from __future__ import annotations

from mm_config.specs import TrainSpec
from mm_data import Shape


def latent_shape(spec: TrainSpec, shape: Shape) -> tuple[int, int, int, int]:
    """`(C, T, H, W)` of the latents of a clip."""
    latent = spec.autoencoder.latent_shape(shape.num_frames, shape.height, shape.width)
    return (spec.autoencoder.latent_channels, *latent)

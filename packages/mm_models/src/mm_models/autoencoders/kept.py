"""What is kept of an encoded clip, so that its latents can be had later without the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mm_models.seeding import generator


def kept_of(autoencoder: Any, video_BCTHW: Tensor, *, sampled: bool = True) -> list[dict[str, Tensor]]:
    """The tensors that each clip's latents follow from, by name, on the autoencoder's device.

    An autoencoder whose latents may be a sample has a method `posteriors` that gives mean and log-variance;
    of another one the latents themselves are kept. What only a sample follows from is left out where none is
    taken.
    """
    if (posteriors := getattr(autoencoder, "posteriors", None)) is not None:
        return posteriors(video_BCTHW, sampled=sampled)
    return [{"latents": latents_CTHW.float()} for latents_CTHW in autoencoder.encode(video_BCTHW)]


def latents_of(kept: Mapping[str, Tensor], *, sample: bool) -> Tensor:
    """`[C, T, H, W]` float32 normalised latents of a clip: what the autoencoder's `encode` gives, to the bit.

    Args:
        kept: Of `kept_of`.
        sample: Whether they are a sample of the posterior, else its mode. The noise is keyed by the clip's
            pixels: a clip always has the same latents, whatever its batch.
    """
    if "latents" in kept:
        return kept["latents"].float()
    latents = kept["mean"].float()
    if sample:
        deviation = torch.exp(0.5 * kept["log_variance"]).float()
        pixels = bytes(kept["pixels"].tolist()).hex()
        noise = torch.randn(latents.shape, generator=generator(pixels, "latent sample"))
        latents = latents + deviation * noise.to(latents)
    shift_C111, scale_C111 = (kept[name].view(-1, 1, 1, 1) for name in ("shift", "scale"))
    return (latents - shift_C111) / scale_C111

"""Autoencoders beside second implementations: the DCT's sums written out, and diffusers' pipelines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan  # type: ignore[attr-defined]
from torch import Tensor

import mm_models
from mm_config.families.tiny import TINY
from mm_config.options.locations import Location, Locations
from mm_config.specs import ReleasedWeights, WanAutoencoderSpec
from mm_models.seeding import generator
from tests.mm_models.parity import relative_error


def clip(*shape: int) -> Tensor:
    return 2 * torch.rand(shape, generator=generator("clip", str(shape))) - 1


def dct_channel(block: Tensor, colour: int, frequencies: Sequence[int]) -> float:
    """One coefficient of a block `[3, 4, 8, 8]`: the orthonormal DCT-II's sum over its pixels, in float64."""
    axes = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))[colour]
    length = math.sqrt(sum(value * value for value in axes))
    total = 0.0
    for channel, *place in itertools.product(*map(range, block.shape)):
        factor = axes[channel] / length
        for size, frequency, at in zip(block.shape[1:], frequencies, place, strict=True):
            factor *= math.sqrt((1 if frequency == 0 else 2) / size)
            factor *= math.cos(math.pi * (2 * at + 1) * frequency / (2 * size))
        total += factor * float(block[channel, place[0], place[1], place[2]])
    return total


MEAN = (-18.5745, 0.0063, -0.0061, 0.0002, 0.3986, 0.1561, 0.0163, 0.0004, 0.009)
STD = (5.9876, 1.8084, 1.7997, 1.019, 3.9803, 2.819, 0.7029, 0.6087, 0.7078)
CHANNELS = ((0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0))
"""Colour and frequencies in time, height and width of the first six, by rising sum; colour counts as one."""


def test_the_dct_is_its_sums_written_out() -> None:
    ours = mm_models.build_autoencoder(TINY.autoencoder)
    video = clip(1, 3, 5, 8, 16)
    latents = ours.encode(video)
    assert latents.shape == (1, 9, 2, 1, 2)
    first = video[0, :, :1].expand(3, 4, 8, 16)  # The first frame counts as a block of equal frames.
    for time, frames in enumerate((first, video[0, :, 1:])):
        for column in range(2):
            block = frames[:, :, :, 8 * column : 8 * column + 8]
            for index, (colour, *frequencies) in enumerate(CHANNELS):
                expected = (dct_channel(block, colour, frequencies) - MEAN[index]) / STD[index]
                assert latents[0, index, time, 0, column].item() == pytest.approx(expected, abs=1e-6)


RELEASED = ReleasedWeights(name="test/wan", subfolder="vae")
KINDS: dict[str, tuple[WanAutoencoderSpec, dict[str, Any]]] = {
    "Wan2.1": (WanAutoencoderSpec(weights=RELEASED, latent_channels=4, base_dim=8, num_res_blocks=1), {}),
    "Wan2.2": (
        WanAutoencoderSpec(
            weights=RELEASED,
            latent_channels=4,
            base_dim=8,
            decoder_base_dim=16,
            num_res_blocks=1,
            is_residual=True,
            patch_size=2,
            spatial_stride=16,
        ),
        {"decoder_base_dim": 16, "is_residual": True, "patch_size": 2, "scale_factor_spatial": 16}
        | {"in_channels": 12, "out_channels": 12},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_wans_autoencoders_are_diffusers_with_its_pipelines_normalisation(tmp_path: Path, kind: str) -> None:
    spec, options = KINDS[kind]
    torch.manual_seed(0)
    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.5, 2.0, 0.7]}
    theirs: Any = AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1, **statistics, **options)
    theirs.save_pretrained(tmp_path / "vae")
    locations = Locations((Location("test/wan", tmp_path, "the test"),))
    ours = mm_models.build_autoencoder(spec, locations=locations)
    video = clip(1, 3, 5, 32, 32)
    # WanImageToVideoPipeline.prepare_latents and the last lines of WanPipeline.__call__.
    mean = torch.tensor(theirs.config.latents_mean).view(1, 4, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(theirs.config.latents_std).view(1, 4, 1, 1, 1)
    with torch.no_grad():
        encoded = (theirs.encode(video).latent_dist.mode() - mean) * inverse_std
        decoded = theirs.decode(encoded / inverse_std + mean, return_dict=False)[0]
        latents = ours.encode(video)
        assert relative_error(latents, encoded) <= 1e-6
        assert relative_error(ours.decode(latents), decoded) <= 1e-5

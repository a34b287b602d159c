"""Colours of latents: the fitted map is the known one of linear autoencoders, and least squares of others."""

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

import mm_models
from mm_config.specs.encoders import DctAutoencoderSpec, WanAutoencoderSpec
from mm_config.specs.weights import RandomWeights
from mm_models.autoencoders.colours import cell_means, colours_of, soft_clips
from mm_models.autoencoders.dct import COLOUR_AXES, analyse, basis, frequencies, synthesise
from mm_models.seeding import generator

WAN21 = WanAutoencoderSpec(weights=RandomWeights(seed=1), base_dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1)
WAN22 = attrs.evolve(WAN21, latent_channels=48, spatial_stride=16, patch_size=2, is_residual=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These convolutions are so small that threads would mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Mixed:
    """A linear autoencoder whose channels are a known mixture of DCT coefficients."""

    def __init__(self, channels: int, block: tuple[int, int, int]) -> None:
        draws = generator("mixture", channels)
        self.block, self.rows = block, basis(channels, block)
        self.mixing = torch.linalg.qr(torch.randn(channels, channels, generator=draws)).Q
        self.shift = torch.randn(channels, generator=draws).view(-1, 1, 1, 1)

    def encode(self, video: Tensor) -> Tensor:
        return torch.einsum("dc,bcthw->bdthw", self.mixing, analyse(video, self.rows)) + self.shift

    def decode(self, latents: Tensor) -> Tensor:
        return synthesise(torch.einsum("dc,bdthw->bcthw", self.mixing, latents - self.shift), self.rows)


@pytest.mark.parametrize(("channels", "block"), [(16, (4, 8, 8)), (48, (4, 16, 16))])
def test_the_map_of_a_linear_autoencoder_is_its_known_one(channels: int, block: tuple[int, int, int]) -> None:
    mixed = Mixed(channels, block)
    spec = DctAutoencoderSpec(latent_channels=channels, spatial_stride=block[1])
    colours = colours_of(mixed, spec)
    # The constant of each colour axis is the only coefficient whose block has a mean: sqrt(size) times it.
    means = torch.zeros(3, channels, dtype=torch.float64)
    for channel, (colour, *place) in enumerate(frequencies(channels, block)):
        if place == [0, 0, 0]:
            means[:, channel] = COLOUR_AXES[colour] / np.sqrt(np.prod(block))
    unmixed = means @ mixed.mixing.T.double()
    latents = mixed.encode(soft_clips(4, block[1], "others"))
    expected = torch.einsum("kc,bcthw->bkthw", unmixed, (latents - mixed.shift).double())
    torch.testing.assert_close(colours.of(latents).double(), expected, atol=2e-4, rtol=0)
    assert colours.error < 1e-4


@pytest.mark.parametrize("spec", [WAN21, WAN22], ids=["16 channels", "48 channels"])
@torch.no_grad()
def test_the_map_of_a_network_is_the_least_squares_of_what_it_decodes(spec: WanAutoencoderSpec) -> None:
    autoencoder = mm_models.build_autoencoder(spec)
    stride = spec.spatial_stride
    colours = colours_of(autoencoder, spec)
    assert colours_of(autoencoder, spec) is colours

    def cells_of(key: str) -> tuple[Any, Any]:
        latents = autoencoder.encode(soft_clips(4, stride, key))
        seen = cell_means(autoencoder.decode(latents), 4, stride)
        known, wanted = (one.double().movedim(1, -1).flatten(0, -2).numpy() for one in (latents, seen))
        return known, wanted

    known, wanted = cells_of("colours of latents")
    mean = known.mean(0)
    slopes = np.linalg.pinv(known - mean, rcond=1e-9) @ (wanted - wanted.mean(0))
    np.testing.assert_allclose(colours.weight_3C.numpy(), slopes.T, atol=1e-4)
    np.testing.assert_allclose(colours.bias_3.numpy(), wanted.mean(0) - mean @ slopes, atol=1e-4)
    residual = known @ colours.weight_3C.numpy().T + colours.bias_3.numpy() - wanted
    assert colours.error == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-3)
    known, wanted = cells_of("others")
    error = known @ colours.weight_3C.numpy().T + colours.bias_3.numpy() - wanted
    assert (error**2).mean() < wanted.var(0).mean()


def test_means_of_cells_are_those_of_their_pixels() -> None:
    video = torch.rand(1, 3, 9, 16, 24, generator=generator("video"))
    means = cell_means(video, 4, 8)
    assert means.shape == (1, 3, 3, 2, 3)
    torch.testing.assert_close(means[0, :, 0, 1, 2], video[0, :, 0, 8:, 16:].mean((1, 2)))
    torch.testing.assert_close(means[0, :, 2, 0, 1], video[0, :, 5:, :8, 8:16].mean((1, 2, 3)))

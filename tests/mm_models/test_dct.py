"""The DCT autoencoder: an orthonormal transform that keeps low frequencies and a causal first frame."""

import math

import pytest
import torch
from torch import Tensor

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.encoders import DctAutoencoderSpec
from mm_models.autoencoders.dct import analyse, basis, frequencies, synthesise
from mm_models.seeding import generator

SPEC = DctAutoencoderSpec(latent_channels=12)
BLOCK = (4, 8, 8)
EVERY = 3 * 4 * 8 * 8


def smooth_clip(frames: int = 17, size: int = 64) -> Tensor:
    """`[1, 3, frames, size, size]`: a wide soft red spot that drifts over grey."""
    t = torch.arange(frames).view(-1, 1, 1)
    y = torch.arange(size).view(1, -1, 1)
    x = torch.arange(size).view(1, 1, -1)
    spot = torch.exp(-((x - 20 - 1.5 * t) ** 2 + (y - size / 2) ** 2) / (2 * 9.0**2))
    return torch.stack((1.6 * spot, 0.3 * spot, 0.3 * spot))[None] - 0.75


def test_basis_rows_are_orthonormal() -> None:
    rows = basis(EVERY, BLOCK).flatten(1).double()
    torch.testing.assert_close(rows @ rows.T, torch.eye(EVERY, dtype=torch.float64), atol=1e-6, rtol=0)


def test_all_coefficients_give_the_video_back() -> None:
    every = basis(EVERY, BLOCK)
    video = torch.rand(2, 3, 9, 16, 24, generator=generator("video")) * 2 - 1
    coefficients = analyse(video, every)
    assert coefficients.shape == (2, EVERY, 3, 2, 3)
    torch.testing.assert_close(synthesise(coefficients, every), video, atol=1e-5, rtol=0)


def test_the_frozen_channels_are_ten_of_luma_and_two_of_colour() -> None:
    kept = frequencies(12, BLOCK)
    assert kept[0] == (0, 0, 0, 0)
    assert {f for f in kept if f[0] == 0} == {
        (0, t, y, x) for t in range(3) for y in range(3) for x in range(3) if t + y + x <= 2
    }
    assert [f for f in kept if f[0] > 0] == [(1, 0, 0, 0), (2, 0, 0, 0)]


def test_the_first_frame_is_encoded_from_itself_alone() -> None:
    autoencoder = mm_models.build_autoencoder(SPEC)
    video = torch.rand(1, 3, 9, 16, 16, generator=generator("video")) * 2 - 1
    changed = video.clone()
    changed[:, :, 1:] = 0
    latents, other = autoencoder.encode(video), autoencoder.encode(changed)
    assert torch.equal(latents[:, :, 0], other[:, :, 0])
    assert not torch.equal(latents[:, :, 1], other[:, :, 1])
    assert torch.equal(autoencoder.encode(video[:, :, :1]), latents[:, :, :1])
    still = autoencoder.decode(latents[:, :, :1])
    assert still.shape == (1, 3, 1, 16, 16)
    torch.testing.assert_close(still, autoencoder.decode(latents)[:, :, :1])


def test_a_smooth_clip_survives_at_64_times_fewer_values() -> None:
    autoencoder = mm_models.build_autoencoder(SPEC)
    clip = smooth_clip()
    latents = autoencoder.encode(clip)
    assert latents.shape == (1, 12, *SPEC.latent_shape(17, 64, 64))
    assert latents.dtype == torch.float32
    error = (autoencoder.decode(latents) - clip).square().mean().sqrt().item()
    assert error < 0.05


def test_decoding_is_the_least_squares_inverse() -> None:
    autoencoder = mm_models.build_autoencoder(SPEC)
    once = autoencoder.decode(autoencoder.encode(smooth_clip()))
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(once)), once, atol=1e-5, rtol=0)


def test_gradients_flow_both_ways() -> None:
    autoencoder = mm_models.build_autoencoder(SPEC)
    video = smooth_clip(9, 16).requires_grad_()
    autoencoder.decode(autoencoder.encode(video)).square().sum().backward()
    assert video.grad is not None and video.grad.flatten(3).abs().amax(-1).min() > 0


def test_grey_video_is_its_level_in_the_first_channel() -> None:
    autoencoder = mm_models.build_autoencoder(SPEC)
    black = -torch.ones(1, 3, 5, 8, 8)
    latents = autoencoder.encode(black)[0, :, :, 0, 0]
    level = -math.sqrt(3 * 4 * 8 * 8)
    torch.testing.assert_close(latents[0], torch.full((2,), (level + 18.5745) / 5.9876), atol=1e-4, rtol=0)
    assert latents[1:].abs().max() < 0.2


def test_fewer_channels_are_the_first_of_more() -> None:
    few = mm_models.build_autoencoder(DctAutoencoderSpec(latent_channels=9)).encode(smooth_clip())
    more = mm_models.build_autoencoder(SPEC).encode(smooth_clip())
    torch.testing.assert_close(few, more[:, :9])


def test_channels_without_known_statistics_are_refused() -> None:
    with pytest.raises(UserError, match=r"at most 12 latent_channels; got 4, 8 and 13"):
        mm_models.build_autoencoder(DctAutoencoderSpec(latent_channels=13))
    with pytest.raises(UserError, match=r"got 4, 16 and 12"):
        mm_models.build_autoencoder(DctAutoencoderSpec(latent_channels=12, spatial_stride=16))

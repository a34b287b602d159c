"""Autoencoders and text and image encoders on the device give what they give on the CPU."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

import mm_models
from mm_config.options.locations import Location, Locations
from mm_config.specs.encoders import DctAutoencoderSpec, WanAutoencoderSpec
from mm_config.specs.weights import RandomWeights
from mm_models.seeding import generator
from tests.mm_models.test_clip import SPEC as CLIP
from tests.mm_models.test_umt5 import SPEC as UMT5
from tests.mm_models.test_wan22_autoencoder import SPEC as WAN_2_2
from tests.mm_models.test_wan_autoencoder import SPEC as WAN_2_1
from tests.npu_standin.parity import assert_equal

CPU = torch.device("cpu")


@pytest.mark.parametrize("spec", [WAN_2_1, WAN_2_2], ids=["Wan 2.1", "Wan 2.2"])
def test_wans_autoencoders_encode_and_decode_as_on_the_cpu(
    npu: torch.device, spec: WanAutoencoderSpec
) -> None:
    drawn = attrs.evolve(spec, weights=RandomWeights(seed=1))
    video = torch.rand(1, 3, 5, 32, 32, generator=generator("clip")) * 2 - 1
    expected, actual = (mm_models.build_autoencoder(drawn, device=device) for device in (CPU, npu))
    latents = expected.encode(video)
    assert_equal(actual.encode(video.to(npu)), latents)
    decoded = actual.decode(latents.to(npu))
    assert decoded.device.type == "npu"
    assert_equal(decoded, expected.decode(latents))


def test_the_cosine_autoencoder_encodes_and_decodes_as_on_the_cpu(npu: torch.device) -> None:
    spec = DctAutoencoderSpec(latent_channels=9)
    video = torch.rand(2, 3, 5, 32, 32, generator=generator("clip")) * 2 - 1
    expected, actual = (mm_models.build_autoencoder(spec, device=device) for device in (CPU, npu))
    latents = expected.encode(video)
    assert_equal(actual.encode(video.to(npu)), latents)
    assert_equal(actual.decode(latents.to(npu)), expected.decode(latents))


def test_umt5_encodes_captions_as_on_the_cpu(npu: torch.device, umt5_release: Path) -> None:
    locations = Locations((Location("tiny-umt5", umt5_release, "the test"),))
    captions = ["a red circle moving right", "blue square", ""]
    expected, actual = (
        mm_models.build_text_encoder(UMT5, device=device, locations=locations).encode(captions)
        for device in (CPU, npu)
    )
    assert actual.device.type == "npu"
    assert_equal(actual, expected)


def test_clip_encodes_frames_as_on_the_cpu(npu: torch.device, clip_release: Path) -> None:
    locations = Locations((Location("tiny-clip", clip_release, "the test"),))
    frames = torch.rand(2, 3, 40, 56, generator=generator("frames")) * 2 - 1
    expected, actual = (
        mm_models.build_image_encoder(CLIP, device=device, locations=locations).encode(frames)
        for device in (CPU, npu)
    )
    assert_equal(actual, expected)

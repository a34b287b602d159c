"""Encoders' parameters, counted from specs alone, equal those of the built networks."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from mm_config import replace
from mm_config.families import wan21, wan22
from mm_config.planning.encoders import encoder_parameters, encoders
from mm_config.specs.encoders import (
    ClipImageEncoderSpec,
    DctAutoencoderSpec,
    HashedTextEncoderSpec,
    Umt5TextEncoderSpec,
    WanAutoencoderSpec,
)
from mm_config.specs.weights import RandomWeights


def numel(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


AUTOENCODER = WanAutoencoderSpec(weights=RandomWeights())


@pytest.mark.parametrize(
    "spec",
    [
        wan21.T2V_14B.autoencoder,
        wan22.TI2V_5B.autoencoder,
        replace(
            AUTOENCODER,
            {
                "base_dim": 16,
                "dim_mult": (1, 1, 2),
                "temporal_downsample": (True, False),
                "num_res_blocks": 3,
            },
        ),
        replace(AUTOENCODER, {"base_dim": 16, "dim_mult": (1, 2), "temporal_downsample": (True,)}),
    ],
    ids=["wan2.1", "wan2.2", "narrow", "two stages"],
)
def test_autoencoders(spec: WanAutoencoderSpec) -> None:
    with torch.device("meta"):
        built: Any = AutoencoderKLWan(
            base_dim=spec.base_dim,
            decoder_base_dim=spec.decoder_base_dim,
            z_dim=spec.latent_channels,
            dim_mult=list(spec.dim_mult),
            num_res_blocks=spec.num_res_blocks,
            temperal_downsample=list(spec.temporal_downsample),
            is_residual=spec.is_residual,
            in_channels=3 * spec.patch_size**2,
            out_channels=3 * spec.patch_size**2,
            patch_size=spec.patch_size,
        )
    assert encoder_parameters(spec) == numel(built)


@pytest.mark.parametrize("changes", [{}, {"num_layers": 2, "num_heads": 6, "d_kv": 8, "vocab_size": 99}])
def test_text_encoders(changes: dict[str, Any]) -> None:
    spec = replace(Umt5TextEncoderSpec(weights=RandomWeights()), changes)
    config = UMT5Config(
        vocab_size=spec.vocab_size,
        d_model=spec.text_dim,
        d_kv=spec.d_kv,
        d_ff=spec.d_ff,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
    )
    with torch.device("meta"):
        built = UMT5EncoderModel(config)
    assert encoder_parameters(spec) == numel(built)
    if not changes:
        assert encoder_parameters(spec) == 5_680_910_336


@pytest.mark.parametrize("changes", [{}, {"num_layers": 2, "image_dim": 64, "d_ff": 96, "patch_size": 28}])
def test_image_encoders(changes: dict[str, Any]) -> None:
    spec = replace(ClipImageEncoderSpec(weights=RandomWeights()), changes)
    config = CLIPVisionConfig(
        hidden_size=spec.image_dim,
        intermediate_size=spec.d_ff,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        image_size=spec.image_size,
        patch_size=spec.patch_size,
    )
    with torch.device("meta"):
        built = CLIPVisionModel(config)
    assert encoder_parameters(spec) == numel(built)


def test_weights_take_their_formats_bytes_and_some_encoders_have_none() -> None:
    text, image, autoencoder = encoders(
        wan21.I2V_14B_480P.text_encoder, wan21.I2V_14B_480P.image_encoder, wan21.I2V_14B_480P.autoencoder
    )
    assert (text.name, text.bytes) == ("text_encoder", 2 * 5_680_910_336)
    assert image.bytes == 4 * image.parameters and autoencoder.bytes == 4 * autoencoder.parameters
    assert encoder_parameters(HashedTextEncoderSpec()) == encoder_parameters(DctAutoencoderSpec()) == 0

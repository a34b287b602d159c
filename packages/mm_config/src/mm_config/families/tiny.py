"""Wan families so small that two CPU cores train them in minutes, with no weights to download."""

from mm_config.schema.evolve import replace
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.encoders import DctAutoencoderSpec, HashedTextEncoderSpec
from mm_config.specs.family import Family
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec

TINY = Family(
    model=WanTransformerSpec(
        hidden_size=256,
        num_attention_heads=4,
        ffn_dim=512,
        num_layers=3,
        in_channels=9,
        out_channels=9,
        patch_size=(1, 4, 4),
        text_dim=64,
        freq_dim=256,
    ),
    autoencoder=DctAutoencoderSpec(latent_channels=9),
    text_encoder=HashedTextEncoderSpec(text_dim=64, max_tokens=8),
    boundary=0.875,
    train_shift=12.0,
    sampler=SamplerSpec(steps=20, shift=12.0, guidance_high_noise=3.0, guidance_low_noise=2.0),
)

TINY_I2V = replace(TINY, {"model.conditioning": Conditioning.FIRST_FRAME, "model.in_channels": 2 * 9 + 4})
"""Videos that go on from a given frame: beside the noise come its latents and a mask of four channels."""

TINY_TI2V = replace(
    TINY,
    {
        "model.conditioning": Conditioning.CLEAN_FIRST_FRAME,
        "boundary": None,
        "sampler.guidance_low_noise": SamplerSpec().guidance_low_noise,
    },
)
"""Videos from text, or from text and a first frame that stays clean; one network."""

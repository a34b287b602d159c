"""A Wan family small enough to train both experts on two CPU cores in minutes, with no weights to download."""

from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.encoders import DctAutoencoderSpec, HashedTextEncoderSpec
from mm_config.specs.family import Family
from mm_config.specs.wan import WanTransformerSpec

TINY = Family(
    model=WanTransformerSpec(
        hidden_size=192,
        num_attention_heads=4,
        ffn_dim=768,
        num_layers=4,
        in_channels=48,
        out_channels=48,
        patch_size=(1, 4, 4),
        text_dim=64,
        freq_dim=64,
    ),
    autoencoder=DctAutoencoderSpec(latent_channels=48),
    text_encoder=HashedTextEncoderSpec(text_dim=64, max_tokens=16),
    boundary=0.875,
    train_shift=5.0,
    sampler=SamplerSpec(steps=20, shift=5.0, guidance_high_noise=3.0, guidance_low_noise=2.0),
)

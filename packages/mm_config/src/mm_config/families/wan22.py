"""The Wan2.2 families, with the values of the official code (Wan-Video/Wan2.2: `wan/configs`)."""

import attrs

from mm_config.families.wan21 import NEGATIVE_PROMPT, WIDTH_14B, part, text_to_video
from mm_config.specs.diffusion import SamplerSpec, SigmaTable, Solver
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.family import Family
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec

T2V_RELEASE = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
I2V_RELEASE = "Wan-AI/Wan2.2-I2V-A14B-Diffusers"
TI2V_RELEASE = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
# Names of our own for the location table: LightX2V publishes these weights as files in its own layout.
T2V_DISTILLED_RELEASE = "lightx2v/Wan2.2-T2V-A14B-4step"
I2V_DISTILLED_RELEASE = "lightx2v/Wan2.2-I2V-A14B-4step"

T2V_A14B = attrs.evolve(
    text_to_video(
        T2V_RELEASE,
        WIDTH_14B,
        # MindSpeed-MM's inference file has shift 3, as has diffusers' scheduler file; the official code 12.
        # Its own size is 720x1280; both networks are also made for 480x832, MindSpeed-MM's and TeleFuser's.
        SamplerSpec(steps=40, shift=12.0, guidance_high_noise=4.0, guidance_low_noise=3.0),
    ),
    # MindSpeed-MM's index fraction 0.417 is sigma 0.87485 at its training shift.
    boundary=0.875,
    low_noise=part(T2V_RELEASE, "transformer_2"),
)

I2V_A14B = attrs.evolve(
    text_to_video(
        I2V_RELEASE,
        attrs.evolve(WIDTH_14B, in_channels=36, conditioning=Conditioning.FIRST_FRAME),
        # MindSpeed-MM's inference file has shift 3 and guidance 4 and 3, at 480x832. The official code's size
        # is 720x1280; it advises shift 3 for 480p alone.
        SamplerSpec(steps=40, shift=5.0, guidance_high_noise=3.5, guidance_low_noise=3.5),
    ),
    # MindSpeed-MM trains with index fraction 0.358, sigma 0.89966, but its inference file switches at 0.875.
    boundary=0.9,
    low_noise=part(I2V_RELEASE, "transformer_2"),
    height=720,
    width=1280,
)

TI2V_5B = Family(
    model=WanTransformerSpec(
        hidden_size=3072,
        num_attention_heads=24,
        ffn_dim=14336,
        num_layers=30,
        in_channels=48,
        out_channels=48,
        conditioning=Conditioning.CLEAN_FIRST_FRAME,
    ),
    autoencoder=WanAutoencoderSpec(
        weights=part(TI2V_RELEASE, "vae"),
        latent_channels=48,
        spatial_stride=16,
        base_dim=160,
        patch_size=2,
        decoder_base_dim=256,
        is_residual=True,
    ),
    text_encoder=Umt5TextEncoderSpec(weights=part(TI2V_RELEASE, "text_encoder")),
    train_shift=5.0,
    train_weighting=T2V_A14B.train_weighting,
    # MindSpeed-MM's inference file makes 45 frames at 16 frames/s; the official code 121 at 24.
    sampler=SamplerSpec(steps=50, shift=5.0, guidance_high_noise=5.0, guidance_low_noise=5.0),
    high_noise=part(TI2V_RELEASE, "transformer"),
    negative_prompt=NEGATIVE_PROMPT,
    num_frames=121,
    height=704,
    width=1280,
    fps=24,
)


def distilled(family: Family, release: str) -> Family:
    """A family's four-step networks, with LightX2V's schedule: two steps for each expert, no guidance."""
    return attrs.evolve(
        family,
        sampler=SamplerSpec(
            steps=4,
            shift=5.0,
            solver=Solver.EULER,
            sigmas=SigmaTable.LISTED,
            timesteps=(1000, 750, 500, 250),
            guidance_high_noise=1.0,
            guidance_low_noise=1.0,
        ),
        high_noise=part(release, "transformer"),
        low_noise=part(release, "transformer_2"),
        distilled=True,
    )


T2V_A14B_DISTILLED = distilled(T2V_A14B, T2V_DISTILLED_RELEASE)
I2V_A14B_DISTILLED = distilled(I2V_A14B, I2V_DISTILLED_RELEASE)

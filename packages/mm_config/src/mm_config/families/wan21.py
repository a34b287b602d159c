"""The Wan2.1 families, with the official code's values (Wan-Video/Wan2.1: `wan/configs`, `generate.py`)."""

import attrs

from mm_config.specs.diffusion import LossWeighting, SamplerSpec
from mm_config.specs.encoders import ClipImageEncoderSpec, Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.family import Family
from mm_config.specs.kinds import Conditioning
from mm_config.specs.wan import WanTransformerSpec
from mm_config.specs.weights import ReleasedWeights

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""`sample_neg_prompt`: the text that Wan was trained to keep away from; a translation is another text."""


def part(release: str, subfolder: str) -> ReleasedWeights:
    """A folder of a release in diffusers' layout."""
    return ReleasedWeights(name=release, subfolder=subfolder)


def guided(steps: int, shift: float, guidance: float) -> SamplerSpec:
    """The sampler of a single network."""
    return SamplerSpec(steps=steps, shift=shift, guidance_high_noise=guidance, guidance_low_noise=guidance)


WIDTH_1_3B = WanTransformerSpec(hidden_size=1536, num_attention_heads=12, ffn_dim=8960, num_layers=30)
WIDTH_14B = WanTransformerSpec(hidden_size=5120, num_attention_heads=40, ffn_dim=13824, num_layers=40)
MODEL_I2V_14B = attrs.evolve(WIDTH_14B, in_channels=36, conditioning=Conditioning.FIRST_FRAME, image_dim=1280)
MODEL_FLF2V_14B = attrs.evolve(
    MODEL_I2V_14B, conditioning=Conditioning.FIRST_AND_LAST_FRAME, image_positions=2 * 257
)


def text_to_video(release: str, model: WanTransformerSpec, sampler: SamplerSpec) -> Family:
    """A family of one network, from a release that holds all its parts."""
    return Family(
        model=model,
        autoencoder=WanAutoencoderSpec(weights=part(release, "vae")),
        text_encoder=Umt5TextEncoderSpec(weights=part(release, "text_encoder")),
        # MindSpeed-MM trains every Wan network with shift 5 and its bell weighting.
        train_shift=5.0,
        train_weighting=LossWeighting.BELL,
        sampler=sampler,
        high_noise=part(release, "transformer"),
        negative_prompt=NEGATIVE_PROMPT,
    )


def image_to_video(release: str, model: WanTransformerSpec, sampler: SamplerSpec) -> Family:
    """A family with an image branch."""
    return attrs.evolve(
        text_to_video(release, model, sampler),
        # The official code runs it in float16, diffusers' documentation in float32.
        image_encoder=ClipImageEncoderSpec(weights=part(release, "image_encoder")),
    )


# The official README advises guidance 6 and a shift of 8 to 12 for the small network.
T2V_1_3B = text_to_video("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", WIDTH_1_3B, guided(50, 8.0, 6.0))
# Made for 480p and 720p: generate.py's own size is 720x1280; MindSpeed-MM and TeleFuser make 480x832.
T2V_14B = text_to_video("Wan-AI/Wan2.1-T2V-14B-Diffusers", WIDTH_14B, guided(50, 5.0, 5.0))
# generate.py advises shift 3 at 480p; diffusers' scheduler files hold 3 for every size.
I2V_14B_480P = image_to_video("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", MODEL_I2V_14B, guided(40, 3.0, 5.0))
I2V_14B_720P = attrs.evolve(
    image_to_video("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", MODEL_I2V_14B, guided(40, 5.0, 5.0)),
    height=720,
    width=1280,
)
# generate.py guides by 5; MindSpeed-MM's inference file, and diffusers' documentation, by 5.5.
FLF2V_14B = attrs.evolve(
    image_to_video("Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers", MODEL_FLF2V_14B, guided(50, 16.0, 5.0)),
    negative_prompt=f"镜头切换，{NEGATIVE_PROMPT}",
    height=720,
    width=1280,
)

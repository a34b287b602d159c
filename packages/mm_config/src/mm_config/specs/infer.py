"""Generation: what the developer fixes for all requests."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, Effect, Group, Layer, field
from mm_config.schema.root import RootSpec
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import (
    AutoencoderSpec,
    ImageEncoderSpec,
    ModelSpec,
    StageSpec,
    TextEncoderSpec,
    Weights,
)
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.requests import RequestSetting, SamplesSpec
from mm_config.specs.serving import (
    ApproximateAttention,
    FeatureCacheSpec,
    InferRuntimeSpec,
    QuantizationSpec,
    SparseAttentionSpec,
)


class ImageFit(enum.Enum):
    """How a given image becomes a frame."""

    AREA = "area"
    """The video takes the image's aspect ratio, with about the spec's area, as in Wan's code."""
    CROP = "crop"
    """The image covers the spec's height and width, and what hangs over is cut off on both sides."""


@spec("infer", layer=Layer.INFERENCE)
class InferSpec(RootSpec):
    """Generates videos with one network, or with a high-noise and a low-noise expert."""

    name: str = field(default="", role=LOCATION)
    """Label of the run; empty takes the experiment file's stem."""
    model: ModelSpec = field(effect=Effect.MATHEMATICS, group=Group.MODEL, layer=Layer.MODEL)
    """The architecture of both experts."""
    boundary: float | None = field(
        default=None,
        gt=0,
        lt=1,
        unit="sigma",
        effect=Effect.MATHEMATICS,
        group=Group.SAMPLING,
        layer=Layer.MODEL,
    )
    """Noise level at and above which the high-noise expert works; None for a single network."""
    high_noise: Weights = field(effect=Effect.WEIGHTS, group=Group.WEIGHTS, layer=Layer.MODEL)
    """Weights of the high-noise expert, or of the single network."""
    low_noise: Weights | None = field(
        default=None, effect=Effect.WEIGHTS, group=Group.WEIGHTS, layer=Layer.MODEL
    )
    """Weights of the low-noise expert."""
    autoencoder: AutoencoderSpec = field(
        effect=Effect.MATHEMATICS, effects={"weights": Effect.WEIGHTS}, group=Group.MODEL, layer=Layer.MODEL
    )
    """Latents to pixels."""
    text_encoder: TextEncoderSpec = field(
        effect=Effect.MATHEMATICS, effects={"weights": Effect.WEIGHTS}, group=Group.MODEL, layer=Layer.MODEL
    )
    """Prompts to features."""
    image_encoder: ImageEncoderSpec | None = field(
        default=None,
        neutral=None,
        effect=Effect.MATHEMATICS,
        effects={"weights": Effect.WEIGHTS},
        group=Group.MODEL,
        layer=Layer.MODEL,
    )
    """Given frames to features, for networks with an image branch; None for others."""
    distilled: bool = field(
        default=False, neutral=False, effect=Effect.WEIGHTS, group=Group.WEIGHTS, layer=Layer.MODEL
    )
    """Whether the weights were distilled to work in few steps without guidance."""
    loras: tuple[AppliedLoraSpec, ...] = field(
        default=(), neutral=(), effect=Effect.WEIGHTS, group=Group.WEIGHTS, layer=Layer.MODEL
    )
    """Adapters that are added to the experts, in this order."""
    sampler: SamplerSpec = field(
        effect=Effect.MATHEMATICS,
        group=Group.SAMPLING,
        short_names=("steps", "shift", "guidance_high_noise", "guidance_low_noise"),
    )
    """The denoising loop."""
    num_frames: int = field(
        default=81, ge=1, le=100_000, unit="frames", effect=Effect.REQUESTS, group=Group.VIDEOS
    )
    """Frames: 4k+1 for an autoencoder that folds 4 frames into one."""
    height: int = field(
        default=480, ge=1, le=65_536, unit="pixels", effect=Effect.REQUESTS, group=Group.VIDEOS
    )
    """Height."""
    width: int = field(
        default=832, ge=1, le=65_536, unit="pixels", effect=Effect.REQUESTS, group=Group.VIDEOS
    )
    """Width."""
    fps: int = field(default=16, ge=1, le=10_000, unit="frames/s", effect=Effect.REQUESTS, group=Group.VIDEOS)
    """Frame rate of the written file."""
    dtype: Dtype = field(default=Dtype.FLOAT32, effect=Effect.MATHEMATICS, group=Group.SAMPLING)
    """Format of the networks' computations; latents and guidance are always float32."""
    float32_residual: bool = field(
        default=False, neutral=False, effect=Effect.MATHEMATICS, group=Group.SAMPLING
    )
    """Whether the residual stream stays float32 where dtype is narrower, as in Wan's code: half the error."""
    samples: SamplesSpec = field(
        default=SamplesSpec(),
        effect=Effect.REQUESTS,
        effects={"scorer": Effect.MEASUREMENT},
        group=Group.VIDEOS,
        layer=Layer.REQUEST,
        short_names=("prompts", "seeds"),
    )
    """The videos that running the experiment makes."""
    negative_prompt: str = field(default="", neutral="", effect=Effect.REQUESTS, group=Group.VIDEOS)
    """What videos should not show, where a request says nothing of its own."""
    sparse_attention: SparseAttentionSpec | None = field(
        default=None, neutral=None, effect=Effect.MATHEMATICS, group=Group.SAMPLING
    )
    """Attention that leaves out distant keys; None is exact."""
    quantization: QuantizationSpec | None = field(
        default=None, neutral=None, effect=Effect.MATHEMATICS, group=Group.SAMPLING
    )
    """Linear layers with few bits; None is exact."""
    feature_cache: FeatureCacheSpec | None = field(
        default=None, neutral=None, effect=Effect.MATHEMATICS, group=Group.SAMPLING
    )
    """Blocks that are skipped in some steps; None is exact."""
    image_fit: ImageFit = field(
        default=ImageFit.AREA, neutral=ImageFit.AREA, effect=Effect.REQUESTS, group=Group.VIDEOS
    )
    """How a given image becomes a frame."""
    image_background: tuple[int, int, int] = field(
        default=(255, 255, 255),
        neutral=(255, 255, 255),
        ge=0,
        le=255,
        effect=Effect.REQUESTS,
        group=Group.VIDEOS,
    )
    """Red, green and blue behind the transparent parts of a given image."""
    requests_may_set: tuple[RequestSetting, ...] = field(
        default=(RequestSetting.SIZE, RequestSetting.FRAMES),
        neutral=(RequestSetting.SIZE, RequestSetting.FRAMES),
        effect=Effect.REQUESTS,
        group=Group.VIDEOS,
    )
    """What a request may choose in place of this spec."""
    approximate_attention: ApproximateAttention | None = field(
        default=None, neutral=None, effect=Effect.MATHEMATICS, group=Group.SAMPLING
    )
    """Attention that is faster and not exact, in place of `runtime.attention`; None is exact."""
    after_decode: tuple[StageSpec, ...] = field(
        default=(), neutral=(), effect=Effect.MATHEMATICS, group=Group.VIDEOS
    )
    """What is done with the decoded frames, in this order."""
    runtime: InferRuntimeSpec = field(
        default=InferRuntimeSpec(), role=EXECUTION, short_names=("batch_size", "device", "build_missing")
    )
    """Where and how videos are made."""

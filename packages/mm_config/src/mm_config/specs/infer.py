"""Generation: what the developer fixes (InferSpec) and what each request says (GenerationRequest)."""

from __future__ import annotations

import enum
from itertools import islice, zip_longest

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, Effect, Group, Layer, field
from mm_config.schema.root import RootSpec
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import (
    AutoencoderSpec,
    ImageEncoderSpec,
    ModelSpec,
    ScorerSpec,
    TextEncoderSpec,
    Weights,
)
from mm_config.specs.lora import AppliedLoraSpec
from mm_config.specs.serving import (
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


@spec("generation-request", layer=Layer.REQUEST)
class GenerationRequest:
    """One video to make."""

    prompt: str = field(min_length=1)
    """What the video shows."""
    negative_prompt: str | None = None
    """What it should not show; "" is nothing, None takes the inference spec's."""
    seed: int = field(default=0, ge=0)
    """Seed of the noise."""
    num_frames: int | None = field(default=None, neutral=None, ge=1, le=100_000, unit="frames")
    """Frames; None takes the inference spec's."""
    height: int | None = field(default=None, neutral=None, ge=1, le=65_536, unit="pixels")
    """Height; None takes the inference spec's."""
    width: int | None = field(default=None, neutral=None, ge=1, le=65_536, unit="pixels")
    """Width; None takes the inference spec's."""
    image: str | None = field(default=None, neutral=None, role=LOCATION)
    """Image file of the first frame, for networks that are given one."""
    last_image: str | None = field(default=None, neutral=None, role=LOCATION)
    """Image file of the last frame, for networks that are given both."""
    strength: float | None = field(default=None, neutral=None, gt=0, le=1)
    """Video to video: share of the noise that is put on the given video; None starts from noise alone."""
    video: str | None = field(default=None, neutral=None, role=LOCATION)
    """Video file that `strength` puts noise on; its first frames are taken."""
    negative_prompt_may_be_empty: bool = field(default=True, neutral=False)
    """Whether an empty negative prompt is one; False, as in older requests, takes the inference spec's."""


@spec("samples")
class SamplesSpec:
    """The videos that running the experiment makes: each prompt with each seed."""

    prompts: tuple[str, ...] = ()
    """What the videos show."""
    seeds: tuple[int, ...] = field(default=(0,), ge=0, min_length=1)
    """Seeds of the noise."""
    scorer: ScorerSpec | None = None
    """How the videos are measured; None measures nothing."""
    images: tuple[str, ...] = field(default=(), neutral=(), role=LOCATION)
    """Image file of each prompt's first frame, for networks that are given one."""
    last_images: tuple[str, ...] = field(default=(), neutral=(), role=LOCATION)
    """Image file of each prompt's last frame, for networks that are given both."""
    wanted: tuple[str, ...] = field(default=(), neutral=())
    """What each prompt's video is to show, for the scorer, where the prompt does not say it all."""

    @property
    def asked_for(self) -> tuple[str, ...]:
        """What the video of each request is to show: what is wanted, or else its prompt."""
        return tuple(text for text in self.wanted or self.prompts for _ in self.seeds)

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        """Every prompt with every seed, prompts outermost; a prompt beyond the images has none."""
        given = zip_longest(self.prompts, self.images, self.last_images)
        return tuple(
            GenerationRequest(prompt=prompt, seed=seed, image=image, last_image=last_image)
            for prompt, image, last_image in islice(given, len(self.prompts))
            for seed in self.seeds
        )


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
    runtime: InferRuntimeSpec = field(
        default=InferRuntimeSpec(), role=EXECUTION, short_names=("batch_size", "device", "build_missing")
    )
    """Where and how videos are made."""

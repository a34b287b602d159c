"""Generation: what the developer fixes (InferSpec) and what each request says (GenerationRequest)."""

from __future__ import annotations

from itertools import islice, zip_longest

from mm_config.schema.decorator import EXECUTION, LOCATION, field, spec
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


@spec("generation-request")
class GenerationRequest:
    """One video to make."""

    prompt: str = field(min_length=1)
    """What the video shows."""
    negative_prompt: str = ""
    """What it should not show."""
    seed: int = field(default=0, ge=0)
    """Seed of the noise."""
    num_frames: int | None = field(default=None, neutral=None, ge=1, unit="frames")
    """Frames; None takes the inference spec's."""
    height: int | None = field(default=None, neutral=None, ge=1, unit="pixels")
    """Height; None takes the inference spec's."""
    width: int | None = field(default=None, neutral=None, ge=1, unit="pixels")
    """Width; None takes the inference spec's."""
    image: str | None = field(default=None, neutral=None, role=LOCATION)
    """Image file of the first frame, for networks that are given one."""
    last_image: str | None = field(default=None, neutral=None, role=LOCATION)
    """Image file of the last frame, for networks that are given both."""
    strength: float | None = field(default=None, neutral=None, gt=0, le=1)
    """Video to video: share of the noise that is put on the given video; None starts from noise alone."""
    video: str | None = field(default=None, neutral=None, role=LOCATION)
    """Video file that `strength` puts noise on; its first frames are taken."""


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

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        """Every prompt with every seed, prompts outermost; a prompt beyond the images has none."""
        given = zip_longest(self.prompts, self.images, self.last_images)
        return tuple(
            GenerationRequest(prompt=prompt, seed=seed, image=image, last_image=last_image)
            for prompt, image, last_image in islice(given, len(self.prompts))
            for seed in self.seeds
        )


@spec("infer")
class InferSpec(RootSpec):
    """Generates videos with one network, or with a high-noise and a low-noise expert."""

    name: str = field(default="", role=LOCATION)
    """Label of the run; empty takes the experiment file's stem."""
    model: ModelSpec
    """The architecture of both experts."""
    boundary: float | None = field(default=None, gt=0, lt=1, unit="sigma")
    """Noise level at and above which the high-noise expert works; None for a single network."""
    high_noise: Weights
    """Weights of the high-noise expert, or of the single network."""
    low_noise: Weights | None = None
    """Weights of the low-noise expert."""
    autoencoder: AutoencoderSpec
    """Latents to pixels."""
    text_encoder: TextEncoderSpec
    """Prompts to features."""
    image_encoder: ImageEncoderSpec | None = field(default=None, neutral=None)
    """Given frames to features, for networks with an image branch; None for others."""
    distilled: bool = field(default=False, neutral=False)
    """Whether the weights were distilled to work in few steps without guidance."""
    loras: tuple[AppliedLoraSpec, ...] = field(default=(), neutral=())
    """Adapters that are added to the experts, in this order."""
    sampler: SamplerSpec
    """The denoising loop."""
    num_frames: int = field(default=81, ge=1, unit="frames")
    """Frames: 4k+1 for an autoencoder that folds 4 frames into one."""
    height: int = field(default=480, ge=1, unit="pixels")
    """Height."""
    width: int = field(default=832, ge=1, unit="pixels")
    """Width."""
    fps: int = field(default=16, ge=1, unit="frames/s")
    """Frame rate of the written file."""
    dtype: Dtype = Dtype.FLOAT32
    """Format of the networks' computations; latents and guidance are always float32."""
    samples: SamplesSpec = SamplesSpec()
    """The videos that running the experiment makes."""
    negative_prompt: str = field(default="", neutral="")
    """What videos should not show, where a request says nothing of its own."""
    sparse_attention: SparseAttentionSpec | None = field(default=None, neutral=None)
    """Attention that leaves out distant keys; None is exact."""
    quantization: QuantizationSpec | None = field(default=None, neutral=None)
    """Linear layers with few bits; None is exact."""
    feature_cache: FeatureCacheSpec | None = field(default=None, neutral=None)
    """Blocks that are skipped in some steps; None is exact."""
    runtime: InferRuntimeSpec = field(default=InferRuntimeSpec(), role=EXECUTION)
    """Where and how videos are made."""

"""Generation: what the developer fixes (InferSpec) and what each request says (GenerationRequest)."""

from __future__ import annotations

from mm_config.schema import EXECUTION, LOCATION, field, spec
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import (
    AutoencoderSpec,
    ModelSpec,
    RootSpec,
    ScorerSpec,
    TextEncoderSpec,
    Weights,
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


@spec("samples")
class SamplesSpec:
    """The videos that running the experiment makes: each prompt with each seed."""

    prompts: tuple[str, ...] = ()
    """What the videos show."""
    seeds: tuple[int, ...] = field(default=(0,), ge=0, min_length=1)
    """Seeds of the noise."""
    scorer: ScorerSpec | None = None
    """How the videos are measured; None measures nothing."""

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        """Every prompt with every seed, prompts outermost."""
        return tuple(
            GenerationRequest(prompt=prompt, seed=seed) for prompt in self.prompts for seed in self.seeds
        )


@spec("infer-runtime")
class InferRuntimeSpec:
    """Where and how videos are made."""

    device: str = field(default="auto", role=EXECUTION)
    """`auto` (an accelerator if there is one), `cpu`, `cuda` or `npu`."""
    batch_size: int = field(default=1, ge=1, role=EXECUTION, unit="videos")
    """Videos denoised at once."""
    build_missing: bool = field(default=False, role=EXECUTION)
    """Whether weights that no finished run has made are trained first."""


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
    runtime: InferRuntimeSpec = field(default=InferRuntimeSpec(), role=EXECUTION)
    """Where and how videos are made."""

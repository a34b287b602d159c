"""What a generation is asked for: one video in each request, or the requests that a spec has itself."""

from __future__ import annotations

import enum
from itertools import islice, zip_longest

from mm_config.schema.decorator import spec
from mm_config.schema.fields import LOCATION, Layer, field
from mm_config.specs.diffusion import Solver
from mm_config.specs.kinds import ScorerSpec


class Resolution(enum.Enum):
    """How large a picture is, whatever its aspect ratio: by the sides of one of 16:9."""

    P480 = "480p"
    """832 x 480 pixels."""
    P720 = "720p"
    """1280 x 720 pixels."""


class RequestSetting(enum.Enum):
    """What a request may choose in place of the inference spec."""

    SIZE = "size"
    """Height and width, or a resolution and an aspect ratio."""
    FRAMES = "frames"
    """The number of frames."""
    STEPS = "steps"
    """The number of denoising steps."""
    SAMPLER = "sampler"
    """Solver, shift and guidance."""


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
    resolution: Resolution | None = field(default=None, neutral=None)
    """How large the picture is, in place of height and width; None takes the inference spec's area."""
    aspect_ratio: str | None = field(default=None, neutral=None)
    """Width to height, such as "16:9", in place of both; None takes the inference spec's."""
    steps: int | None = field(default=None, neutral=None, ge=1, le=100_000)
    """Denoising steps; None takes the inference spec's."""
    solver: Solver | None = field(default=None, neutral=None)
    """The integrator; None takes the inference spec's."""
    shift: float | None = field(default=None, neutral=None, ge=0.01)
    """Shift of the sampling grid; None takes the inference spec's."""
    guidance_high_noise: float | None = field(default=None, neutral=None, ge=1)
    """Guidance of the high-noise expert, or of the single network; None takes the inference spec's."""
    guidance_low_noise: float | None = field(default=None, neutral=None, ge=1)
    """Guidance of the low-noise expert; None takes the inference spec's."""


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

"""A model family: the one value that training and inference of both experts are made from."""

from __future__ import annotations

from typing import Any

import attrs

from mm_config.schema.decorator import spec
from mm_config.schema.fields import field, field_types
from mm_config.specs.diffusion import Expert, FlowMatchingSpec, LossWeighting, SamplerSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import AutoencoderSpec, ImageEncoderSpec, ModelSpec, TextEncoderSpec, Weights
from mm_config.specs.train import TrainSpec


@spec("family")
class Family:
    """What all runs of a model family agree on; the boundary is stored here and nowhere else."""

    model: ModelSpec
    """The architecture of every expert."""
    autoencoder: AutoencoderSpec
    """Pixels to latents and back."""
    text_encoder: TextEncoderSpec
    """Captions to features."""
    boundary: float | None = field(default=None, gt=0, lt=1, unit="sigma")
    """Noise level at which the experts change; None for a single network."""
    train_shift: float = field(default=5.0, ge=0.01)
    """Shift of the training grid."""
    sampler: SamplerSpec = SamplerSpec()
    """The family's own sampler settings."""
    train_weighting: LossWeighting = field(default=LossWeighting.NONE, neutral=LossWeighting.NONE)
    """How the training loss depends on the noise level."""
    image_encoder: ImageEncoderSpec | None = field(default=None, neutral=None)
    """First frames to features, for networks with an image branch; None for others."""
    high_noise: Weights | None = field(default=None, neutral=None)
    """Published weights of the high-noise expert, or of the single network; None for none."""
    low_noise: Weights | None = field(default=None, neutral=None)
    """Published weights of the low-noise expert."""
    distilled: bool = field(default=False, neutral=False)
    """Whether the published weights were distilled to work in few steps without guidance."""
    negative_prompt: str = field(default="", neutral="")
    """What the family's videos should not show, where a request says nothing of its own."""
    num_frames: int = field(default=81, neutral=81, ge=1, le=100_000, unit="frames")
    """Frames of the family's videos."""
    height: int = field(default=480, neutral=480, ge=1, le=65_536, unit="pixels")
    """Height of the family's videos."""
    width: int = field(default=832, neutral=832, ge=1, le=65_536, unit="pixels")
    """Width of the family's videos."""
    fps: int = field(default=16, neutral=16, ge=1, le=10_000, unit="frames/s")
    """Frame rate of the family's videos."""

    def train(
        self, expert: Expert = Expert.SINGLE, *, like: TrainSpec | None = None, **fields: Any
    ) -> TrainSpec:
        """The training spec of one expert, starting from its published weights where there are any.

        Args:
            expert: The expert.
            like: Takes over all that the family and `fields` don't say from this training.
            fields: Other fields of TrainSpec.
        """
        start = self.low_noise if expert is Expert.LOW_NOISE else self.high_noise
        own: dict[str, Any] = {
            "model": self.model,
            "expert": expert,
            "autoencoder": self.autoencoder,
            "text_encoder": self.text_encoder,
            "image_encoder": self.image_encoder,
            "diffusion": FlowMatchingSpec(
                shift=self.train_shift, boundary=self.boundary, weighting=self.train_weighting
            ),
            **({} if start is None else {"start_from": start}),
            **fields,
        }
        return TrainSpec(**own) if like is None else attrs.evolve(like, **own)

    def infer(self, **fields: Any) -> InferSpec:
        """The inference spec, with the published weights where there are any.

        Args:
            fields: Other fields of InferSpec.
        """
        own = {name: getattr(self, name, None) for name in field_types(InferSpec)}
        return InferSpec(**({name: value for name, value in own.items() if value is not None} | fields))

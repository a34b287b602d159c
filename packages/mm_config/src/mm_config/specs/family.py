"""A model family: the one value that training and inference of both experts are made from."""

from __future__ import annotations

from typing import Any

from mm_config.schema import field, spec
from mm_config.specs.diffusion import Expert, FlowMatchingSpec, SamplerSpec
from mm_config.specs.infer import InferSpec
from mm_config.specs.kinds import AutoencoderSpec, ModelSpec, TextEncoderSpec
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
    train_shift: float = field(default=5.0, gt=0)
    """Shift of the training grid."""
    sampler: SamplerSpec = SamplerSpec()
    """The family's own sampler settings."""

    def train(self, expert: Expert = Expert.SINGLE, **fields: Any) -> TrainSpec:
        """The training spec of one expert; `fields` are TrainSpec's others."""
        diffusion = FlowMatchingSpec(shift=self.train_shift, boundary=self.boundary)
        others: dict[str, Any] = {"diffusion": diffusion, **fields}
        return TrainSpec(
            model=self.model,
            expert=expert,
            autoencoder=self.autoencoder,
            text_encoder=self.text_encoder,
            **others,
        )

    def infer(self, **fields: Any) -> InferSpec:
        """The inference spec; `fields` are InferSpec's others."""
        others: dict[str, Any] = {"sampler": self.sampler, **fields}
        return InferSpec(
            model=self.model,
            boundary=self.boundary,
            autoencoder=self.autoencoder,
            text_encoder=self.text_encoder,
            **others,
        )

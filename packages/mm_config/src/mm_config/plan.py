"""What a run costs, from the spec alone: tokens, parameters, FLOPs and bytes."""

from __future__ import annotations

from typing import Any

import attrs

from mm_config.errors import UserError
from mm_config.specs.diffusion import SamplerSpec, SigmaTable
from mm_config.specs.dtype import Dtype
from mm_config.specs.infer import InferSpec
from mm_config.specs.train import TrainSpec

_BYTES = {Dtype.FLOAT32: 4, Dtype.BFLOAT16: 2}
_NUM_TRAIN_TIMESTEPS = 1000


@attrs.frozen
class Plan:
    """The cost of a training step, or of a generated video."""

    world_size: int
    """Ranks that the step is spread over."""
    tokens: int
    """Tokens of one sample."""
    parameters: int
    """Parameters of one network."""
    forward_flops: int
    """Floating-point operations of one sample's forward pass, 2 per multiply-add."""
    step_flops: int
    """Training: of one optimizer step over the global batch. Inference: of one whole video."""
    bytes_per_rank: tuple[tuple[str, int], ...]
    """What occupies memory on each rank, by name; text encoder and autoencoder are not counted."""

    @property
    def total_bytes_per_rank(self) -> int:
        """The sum of `bytes_per_rank`."""
        return sum(size for _, size in self.bytes_per_rank)

    def to_json(self) -> dict[str, Any]:
        """The plan with `bytes_per_rank` as a mapping and its total."""
        return {
            **attrs.asdict(self),
            "bytes_per_rank": dict(self.bytes_per_rank),
            "total_bytes_per_rank": self.total_bytes_per_rank,
        }


def plan(spec: Any, world_size: int = 1) -> Plan:
    """The plan of a training or an inference spec.

    A training step costs three forward passes per sample (one forward, two backward; recomputation
    is not counted). Its memory per rank: float32 parameters, gradients and AdamW's two moments,
    sharded over all ranks, and the values that a micro-batch's forward pass keeps for its backward
    pass, see `ModelSpec.block_activation_values`.

    A video costs one forward pass per denoising step, two where the expert at work has guidance
    above 1. Its memory per rank: the parameters of all experts, unsharded, and one block's values
    for all videos of a batch, twice with guidance.

    Raises:
        UserError: The spec is neither a TrainSpec nor an InferSpec.
    """
    if isinstance(spec, TrainSpec):
        return _train_plan(spec, world_size)
    if isinstance(spec, InferSpec):
        return _infer_plan(spec, world_size)
    raise UserError(f"a plan needs a training or an inference spec, got {type(spec).__name__}")


def _train_plan(spec: TrainSpec, world_size: int) -> Plan:
    data, model = spec.data, spec.model
    latent_shape = spec.autoencoder.latent_shape(data.num_frames, data.height, data.width)
    forward_flops = model.forward_flops(latent_shape, spec.text_encoder.max_tokens)
    parameters = model.parameter_count()
    micro_batch = spec.runtime.micro_batch_size or -(-data.batch_size // world_size)
    values = model.num_layers * model.block_activation_values(latent_shape) * micro_batch
    shard = -(-parameters // world_size)
    return Plan(
        world_size=world_size,
        tokens=model.tokens(latent_shape),
        parameters=parameters,
        forward_flops=forward_flops,
        step_flops=3 * forward_flops * data.batch_size,
        bytes_per_rank=(
            ("parameters", 4 * shard),
            ("gradients", 4 * shard),
            ("optimizer", 8 * shard),
            ("activations", values * _BYTES[spec.precision.compute]),
        ),
    )


def _infer_plan(spec: InferSpec, world_size: int) -> Plan:
    model, sampler = spec.model, spec.sampler
    latent_shape = spec.autoencoder.latent_shape(spec.num_frames, spec.height, spec.width)
    forward_flops = model.forward_flops(latent_shape, spec.text_encoder.max_tokens)
    parameters = model.parameter_count()
    experts = 1 if spec.low_noise is None else 2
    guidances = _guidance_by_step(sampler, spec.boundary)
    passes = [2 if guidance > 1 else 1 for guidance in guidances]
    values = model.block_activation_values(latent_shape) * spec.runtime.batch_size * max(passes)
    bytes_per_value = _BYTES[spec.dtype]
    return Plan(
        world_size=world_size,
        tokens=model.tokens(latent_shape),
        parameters=parameters,
        forward_flops=forward_flops,
        step_flops=forward_flops * sum(passes),
        bytes_per_rank=(
            ("parameters", experts * parameters * bytes_per_value),
            ("activations", values * bytes_per_value),
        ),
    )


def _guidance_by_step(sampler: SamplerSpec, boundary: float | None) -> list[float]:
    """The guidance of the expert at work in each denoising step."""
    high, low = sampler.guidance_high_noise, sampler.guidance_low_noise
    if boundary is None:
        return [high] * sampler.steps
    threshold = boundary * _NUM_TRAIN_TIMESTEPS
    return [high if timestep >= threshold else low for timestep in _timesteps(sampler)]


def _timesteps(sampler: SamplerSpec) -> list[int]:
    """The integer timesteps of a sampler's table, as its solver passes them to the network."""
    first, last = (0.999, 0.0) if sampler.sigmas is SigmaTable.WAN_OFFICIAL else (1.0, 0.001)
    bases = [first + (last - first) * step / sampler.steps for step in range(sampler.steps)]
    sigmas = [sampler.shift * base / (1 + (sampler.shift - 1) * base) for base in bases]
    return [int(_NUM_TRAIN_TIMESTEPS * sigma) for sigma in sigmas]

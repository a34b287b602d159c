"""A training run."""

from __future__ import annotations

import enum

from mm_config.schema import EXECUTION, LOCATION, field, spec
from mm_config.specs.data import DataSpec
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import AutoencoderSpec, ModelSpec, RootSpec, TextEncoderSpec, Weights
from mm_config.specs.weights import RandomWeights


class Decay(enum.Enum):
    """How the learning rate falls after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


@spec("adamw")
class AdamWSpec:
    """AdamW with gradient clipping."""

    lr: float = field(default=1e-5, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = field(default=(0.9, 0.999), ge=0, lt=1)
    """Decay rates of the first and second moments."""
    eps: float = field(default=1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = field(default=0.01, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""


@spec("schedule")
class ScheduleSpec:
    """How long to train and how the learning rate moves."""

    steps: int = field(ge=1)
    """Optimizer steps."""
    warmup_steps: int = field(default=0, ge=0)
    """Steps of linear warm-up from zero."""
    decay: Decay = Decay.CONSTANT
    """How the learning rate falls after the warm-up."""
    final_ratio: float = field(default=0.0, ge=0, le=1)
    """Learning rate of the last step as a share of the peak, where it decays."""


@spec("precision")
class PrecisionSpec:
    """Number formats; master weights and the optimizer's state are always float32."""

    compute: Dtype = Dtype.FLOAT32
    """Format of the forward and backward pass."""
    reduce: Dtype = Dtype.FLOAT32
    """Format in which gradients are summed over ranks."""


@spec("fsdp")
class FsdpSpec:
    """FSDP2: which modules are sharded as one unit."""

    wrap: tuple[str, ...] = field(default=("blocks.*",), role=EXECUTION)
    """Glob patterns over module names, each match becomes a unit; the root takes the rest."""
    reshard_after_forward: bool = field(default=True, role=EXECUTION)
    """Whether gathered parameters are freed between forward and backward."""


@spec("checkpoints")
class CheckpointSpec:
    """When training states are written and which are kept."""

    every_steps: int = field(default=1000, ge=1, role=EXECUTION, unit="steps")
    """Steps between checkpoints; the last step always writes one."""
    keep_last: int = field(default=2, ge=1, role=EXECUTION, unit="checkpoints")
    """Newest checkpoints that are kept."""


@spec("train-runtime")
class TrainRuntimeSpec:
    """Where and how the run is carried out."""

    device: str = field(default="auto", role=EXECUTION)
    """`auto` (an accelerator if there is one), `cpu`, `cuda` or `npu`."""
    micro_batch_size: int | None = field(default=None, ge=1, role=EXECUTION, unit="clips")
    """Clips per forward pass on one rank; None takes the rank's whole share of the batch."""
    log_every: int = field(default=10, ge=1, role=EXECUTION, unit="steps")
    """Steps between lines of progress where stdout is no terminal."""
    build_missing: bool = field(default=False, role=EXECUTION)
    """Whether weights that this run starts from are trained first where they are missing."""


@spec("train")
class TrainSpec(RootSpec):
    """Trains one network, or one expert of two, by flow matching."""

    name: str = field(default="", role=LOCATION)
    """Label of the run; empty takes the experiment file's stem."""
    model: ModelSpec
    """The network's architecture."""
    expert: Expert = Expert.SINGLE
    """The part of the noise range this network is trained on."""
    start_from: Weights = RandomWeights()
    """Weights before the first step."""
    diffusion: FlowMatchingSpec
    """Noise levels and the loss."""
    autoencoder: AutoencoderSpec
    """Pixels to latents."""
    text_encoder: TextEncoderSpec
    """Captions to features."""
    data: DataSpec
    """Clips, captions and batches."""
    optim: AdamWSpec = AdamWSpec()
    """The optimizer."""
    schedule: ScheduleSpec
    """Steps and learning rate."""
    precision: PrecisionSpec = PrecisionSpec()
    """Number formats."""
    seed: int = field(default=0, ge=0)
    """Seed of data order, noise, noise levels and caption dropout."""
    fsdp: FsdpSpec = field(default=FsdpSpec(), role=EXECUTION)
    """Sharding."""
    checkpoint: CheckpointSpec = field(default=CheckpointSpec(), role=EXECUTION)
    """Checkpoints."""
    runtime: TrainRuntimeSpec = field(default=TrainRuntimeSpec(), role=EXECUTION)
    """Where and how the run is carried out."""

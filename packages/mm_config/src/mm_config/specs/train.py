"""A training run."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, Effect, Group, Layer, field
from mm_config.schema.root import RootSpec
from mm_config.specs.data import DataSpec
from mm_config.specs.diffusion import Expert, FlowMatchingSpec
from mm_config.specs.dtype import Dtype
from mm_config.specs.kinds import (
    AutoencoderSpec,
    ImageEncoderSpec,
    ModelSpec,
    OptimizerSpec,
    TextEncoderSpec,
    Weights,
)
from mm_config.specs.lora import LoraSpec
from mm_config.specs.monitoring import (
    MemorySnapshotSpec,
    ProfilerSpec,
    TrainingSamplesSpec,
    ValidationSpec,
)
from mm_config.specs.npu import NpuSpec
from mm_config.specs.optim import AdamWSpec, EmaSpec, ScheduleSpec
from mm_config.specs.parallel import (
    NO_COMPILE,
    NO_PARALLEL,
    NO_RECOMPUTE,
    AttentionImpl,
    CompileSpec,
    FsdpSpec,
    ParallelSpec,
    RecomputeSpec,
)
from mm_config.specs.weights import RandomWeights


class StartMode(enum.Enum):
    """What is taken over from the weights that a run starts from."""

    WEIGHTS = "weights"
    """The weights alone; the optimizer, the schedule and the data start anew."""
    RESTART = "restart"
    """The weights and the optimizer's moments; the schedule and the data start anew."""
    EXACT = "exact"
    """Everything: the run goes on where the training that made the weights ended."""


@spec("precision")
class PrecisionSpec:
    """Number formats; master weights and the optimizer's state are always float32."""

    compute: Dtype = Dtype.FLOAT32
    """Format of the forward and backward pass."""
    reduce: Dtype = Dtype.FLOAT32
    """Format in which gradients are summed over ranks."""
    output: Dtype | None = field(default=None, neutral=None)
    """Format of the network's output; None leaves it."""
    allow_tf32: bool = field(default=False, neutral=False)
    """Whether float32 products may round their factors to 10 bits (TF32, HF32)."""
    float32_residual: bool = field(default=False, neutral=False)
    """Whether the residual stream stays float32 where compute is narrower: about half the error."""


@spec("checkpoints")
class CheckpointSpec:
    """When training states are written and which are kept."""

    every_steps: int = field(default=1000, ge=1, role=EXECUTION, unit="steps")
    """Steps between checkpoints; the last step always writes one."""
    keep_last: int = field(default=2, ge=1, role=EXECUTION, unit="checkpoints")
    """Newest checkpoints that are kept."""
    keep_every: int | None = field(default=None, neutral=None, ge=1, role=EXECUTION, unit="steps")
    """Checkpoints at multiples of these steps are kept for ever; None keeps none of them."""
    asynchronous: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether training goes on while a checkpoint is written."""


@spec("train-runtime")
class TrainRuntimeSpec:
    """Where and how the run is carried out."""

    device: str = field(default="auto", role=EXECUTION)
    """`auto` (an accelerator if there is one), `cpu`, `cuda` or `npu`."""
    micro_batch_size: int | None = field(default=None, ge=1, le=1_000_000, role=EXECUTION, unit="clips")
    """Clips per forward pass on one rank; None takes the rank's whole share of the batch."""
    log_every: int = field(default=10, ge=1, role=EXECUTION, unit="steps")
    """Steps between lines of progress where stdout is no terminal."""
    build_missing: bool = field(default=False, role=EXECUTION)
    """Whether weights that this run starts from are trained first where they are missing."""
    attention: AttentionImpl = field(default=AttentionImpl.AUTO, neutral=AttentionImpl.AUTO, role=EXECUTION)
    """The implementation of attention."""
    deterministic: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether only deterministic kernels may run, so that two runs are equal to the bit."""
    encode_ahead: int = field(default=1, neutral=1, ge=1, le=10_000, role=EXECUTION, unit="steps")
    """Steps whose clips and captions are encoded at once, before they are trained on."""
    offload_encoders: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether the encoders wait in the host's memory while the network trains."""
    shard_encoders: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether the text and image encoders' weights are shared by the ranks instead of whole on each."""
    timeout_minutes: int = field(default=30, neutral=30, ge=1, le=525_600, role=EXECUTION, unit="min")
    """Longest wait of a rank for the others."""
    timeout_seconds: int | None = field(default=None, neutral=None, ge=1, role=EXECUTION, unit="s")
    """The same where minutes are too coarse, in place of `timeout_minutes`; None takes those."""
    tensorboard: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether metrics also go to TensorBoard files in the run folder."""
    wandb_project: str | None = field(default=None, neutral=None, role=LOCATION)
    """Weights & Biases project that metrics also go to; None for none."""
    npu: NpuSpec | None = field(default=None, neutral=None, role=EXECUTION)
    """Environment variables of an Ascend NPU's libraries; None leaves them as the shell has them."""


@spec("train", layer=Layer.TRAINING)
class TrainSpec(RootSpec):
    """Trains one network, or one expert of two, by flow matching."""

    name: str = field(default="", role=LOCATION)
    """Label of the run; empty takes the experiment file's stem."""
    model: ModelSpec = field(effect=Effect.MATHEMATICS, group=Group.MODEL, layer=Layer.MODEL)
    """The network's architecture."""
    expert: Expert = field(default=Expert.SINGLE, effect=Effect.MATHEMATICS, group=Group.NOISE)
    """The part of the noise range this network is trained on."""
    start_from: Weights = field(
        default=RandomWeights(), effect=Effect.WEIGHTS, group=Group.WEIGHTS, layer=Layer.MODEL
    )
    """Weights before the first step."""
    start_mode: StartMode = field(
        default=StartMode.WEIGHTS, neutral=StartMode.WEIGHTS, effect=Effect.WEIGHTS, group=Group.WEIGHTS
    )
    """What is taken over from start_from: weights alone, with the optimizer's moments, or everything."""
    diffusion: FlowMatchingSpec = field(effect=Effect.MATHEMATICS, group=Group.NOISE)
    """Noise levels and the loss."""
    autoencoder: AutoencoderSpec = field(
        effect=Effect.MATHEMATICS, effects={"weights": Effect.WEIGHTS}, group=Group.MODEL, layer=Layer.MODEL
    )
    """Pixels to latents."""
    text_encoder: TextEncoderSpec = field(
        effect=Effect.MATHEMATICS, effects={"weights": Effect.WEIGHTS}, group=Group.MODEL, layer=Layer.MODEL
    )
    """Captions to features."""
    image_encoder: ImageEncoderSpec | None = field(
        default=None,
        neutral=None,
        effect=Effect.MATHEMATICS,
        effects={"weights": Effect.WEIGHTS},
        group=Group.MODEL,
        layer=Layer.MODEL,
    )
    """First frames to features, for networks with an image branch; None for others."""
    data: DataSpec = field(
        effect=Effect.DATA_ORDER,
        group=Group.DATA,
        short_names=("batch_size", "workers", "num_frames", "height", "width", "fps"),
    )
    """Clips, captions and batches."""
    optim: OptimizerSpec = field(
        default=AdamWSpec(),
        effect=Effect.MATHEMATICS,
        group=Group.OPTIMISATION,
        short_names=("lr", "weight_decay"),
    )
    """The optimizer."""
    schedule: ScheduleSpec = field(
        effect=Effect.MATHEMATICS, group=Group.OPTIMISATION, short_names=("steps", "warmup_steps")
    )
    """Steps and learning rate."""
    frozen: tuple[str, ...] = field(
        default=(), neutral=(), effect=Effect.MATHEMATICS, group=Group.OPTIMISATION
    )
    """Glob patterns over parameter names that are not trained."""
    lora: LoraSpec | None = field(
        default=None,
        neutral=None,
        effect=Effect.MATHEMATICS,
        effects={"start_from": Effect.WEIGHTS},
        group=Group.OPTIMISATION,
    )
    """Adapters that are trained instead of the network; None trains the network."""
    ema: EmaSpec | None = field(
        default=None, neutral=None, effect=Effect.MATHEMATICS, group=Group.OPTIMISATION
    )
    """A moving average of the weights; None keeps none."""
    validation: ValidationSpec | None = field(
        default=None,
        neutral=None,
        effect=Effect.MEASUREMENT,
        effects={"holdout": Effect.DATA_ORDER},
        group=Group.OPTIMISATION,
    )
    """The loss on held-out clips; None measures none."""
    samples: TrainingSamplesSpec | None = field(default=None, neutral=None, role=EXECUTION)
    """Videos that are made on the way; None makes none."""
    precision: PrecisionSpec = field(
        default=PrecisionSpec(), effect=Effect.MATHEMATICS, group=Group.OPTIMISATION
    )
    """Number formats."""
    seed: int = field(default=0, ge=0, effect=Effect.DATA_ORDER, group=Group.OPTIMISATION)
    """Seed of data order, noise, noise levels and caption dropout."""
    fsdp: FsdpSpec = field(default=FsdpSpec(), role=EXECUTION)
    """Sharding."""
    parallel: ParallelSpec = field(default=NO_PARALLEL, neutral=NO_PARALLEL, role=EXECUTION)
    """Ranks that work on one sample."""
    recompute: RecomputeSpec = field(default=NO_RECOMPUTE, neutral=NO_RECOMPUTE, role=EXECUTION)
    """What the backward pass computes again."""
    compile: CompileSpec = field(default=NO_COMPILE, neutral=NO_COMPILE, role=EXECUTION)
    """Compilation of the network."""
    checkpoint: CheckpointSpec = field(default=CheckpointSpec(), role=EXECUTION)
    """Checkpoints."""
    runtime: TrainRuntimeSpec = field(
        default=TrainRuntimeSpec(),
        role=EXECUTION,
        short_names=("micro_batch_size", "device", "build_missing"),
    )
    """Where and how the run is carried out."""
    profiler: ProfilerSpec | None = field(default=None, neutral=None, role=EXECUTION)
    """A recorded window of steps; None records none."""
    memory_snapshot: MemorySnapshotSpec | None = field(default=None, neutral=None, role=EXECUTION)
    """A recorded window of the allocator; None records none."""

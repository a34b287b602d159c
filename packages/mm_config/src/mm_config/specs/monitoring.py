"""What a training measures of itself."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, LOCATION, field
from mm_config.specs.diffusion import SamplerSpec
from mm_config.specs.kinds import Weights


@spec("profiler")
class ProfilerSpec:
    """A window of steps that torch.profiler (on NPU, torch_npu's) records."""

    start_step: int = field(default=10, ge=0, role=EXECUTION)
    """First recorded step."""
    end_step: int = field(default=11, ge=1, role=EXECUTION)
    """First step after the recorded ones."""
    ranks: tuple[int, ...] = field(default=(0,), ge=0, role=EXECUTION)
    """Ranks that record; none means all."""
    record_shapes: bool = field(default=False, role=EXECUTION)
    """Whether operators' shapes are recorded."""
    with_stack: bool = field(default=False, role=EXECUTION)
    """Whether Python stacks are recorded."""
    with_memory: bool = field(default=False, role=EXECUTION)
    """Whether allocations are recorded."""
    with_cpu: bool = field(default=True, role=EXECUTION)
    """Whether the host's side is recorded."""
    npu_level: int = field(default=1, ge=0, le=2, role=EXECUTION)
    """NPU: depth of the recording."""
    npu_aic_metrics: str = field(default="PipeUtilization", min_length=1, role=EXECUTION)
    """NPU: `PipeUtilization` or `ArithmeticUtilization`."""
    npu_simplify: bool = field(default=False, role=EXECUTION)
    """NPU: whether raw data is removed after the analysis."""
    npu_analyse: bool = field(default=True, role=EXECUTION)
    """NPU: whether the recording is analysed at once."""
    folder: str = field(default="profile", min_length=1, role=LOCATION)
    """Folder inside the run folder."""


class Stacks(enum.Enum):
    """Call stacks in a memory snapshot."""

    PYTHON = "python"
    ALL = "all"
    """With C++ frames."""


@spec("memory-snapshot")
class MemorySnapshotSpec:
    """A recording of the allocator over a window of steps."""

    start_step: int = field(default=0, ge=0, role=EXECUTION)
    """First recorded step."""
    end_step: int = field(default=2, ge=1, role=EXECUTION)
    """First step after the recorded ones."""
    ranks: tuple[int, ...] = field(default=(0,), ge=0, role=EXECUTION)
    """Ranks that record; none means all."""
    stacks: Stacks = field(default=Stacks.ALL, role=EXECUTION)
    """Call stacks in the snapshot."""
    max_entries: int | None = field(default=None, ge=1, role=EXECUTION)
    """Events kept at most; None keeps all."""
    folder: str = field(default="memory", min_length=1, role=LOCATION)
    """Folder inside the run folder."""


@spec("validation")
class ValidationSpec:
    """The loss on clips that are not trained on, at fixed noise levels."""

    every_steps: int = field(default=1000, ge=1, role=EXECUTION, unit="steps")
    """Steps between validations; the last step always ends with one."""
    batches: int = field(default=10, ge=1, le=1_000_000, role=EXECUTION, unit="batches")
    """Batches of each validation; at most those that the held-out clips fill."""
    holdout: float = field(default=0.01, gt=0, lt=1)
    """Share of the files that is kept out of training, with all clips that are cut of them; about, since a
    hash of each file decides."""
    sigmas: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), gt=0, le=1, min_length=1)
    """Noise levels at which the loss is taken; those of the other expert are left out."""


@spec("training-samples")
class TrainingSamplesSpec:
    """Videos that a training makes on its way with the network as it is, or with its average."""

    prompts: tuple[str, ...] = field(min_length=1, role=EXECUTION)
    """What the videos show."""
    sampler: SamplerSpec = field(role=EXECUTION)
    """The denoising loop."""
    every_steps: int = field(default=1000, ge=1, role=EXECUTION, unit="steps")
    """Steps between samples; the last step always makes some."""
    seeds: tuple[int, ...] = field(default=(0,), ge=0, min_length=1, role=EXECUTION)
    """Seeds of the noise."""
    images: tuple[str, ...] = field(default=(), role=LOCATION)
    """Image file of each prompt's first frame, for networks that are given one."""
    last_images: tuple[str, ...] = field(default=(), role=LOCATION)
    """Image file of each prompt's last frame, for networks that are given both."""
    num_frames: int | None = field(default=None, ge=1, le=100_000, role=EXECUTION, unit="frames")
    """Frames; None takes the data's."""
    height: int | None = field(default=None, ge=1, le=65_536, role=EXECUTION, unit="pixels")
    """Height; None takes the data's."""
    width: int | None = field(default=None, ge=1, le=65_536, role=EXECUTION, unit="pixels")
    """Width; None takes the data's."""
    batch_size: int = field(default=1, ge=1, le=10_000, role=EXECUTION, unit="videos")
    """Videos denoised at once."""
    other_expert: Weights | None = field(default=None, role=EXECUTION)
    """Weights of the expert that is not trained here; None works through the whole noise range with the one
    that is, and says which part it was not trained on."""

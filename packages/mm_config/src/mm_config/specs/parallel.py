"""How one network is spread over ranks and fitted into their memory; none of it changes the mathematics."""

from __future__ import annotations

import enum
import math

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, field


@spec("fsdp")
class FsdpSpec:
    """FSDP2: which modules are sharded as one unit.

    Patterns are globs over module names, segment by segment; `blocks.{0-3,7}` lists numbers.
    """

    wrap: tuple[str, ...] = field(default=("blocks.*",), role=EXECUTION)
    """Glob patterns over module names, each match becomes a unit; the root takes the rest."""
    blocks_per_unit: int = field(default=1, neutral=1, ge=1, le=1_000, role=EXECUTION, unit="blocks")
    """Blocks that follow one another and are gathered as one unit."""
    reshard_after_forward: bool = field(default=True, role=EXECUTION)
    """Whether gathered parameters are freed between forward and backward."""
    reshard_size: int | None = field(default=None, neutral=None, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the parameters between forward and backward, a part of shard_size; None takes all."""
    ignore: tuple[str, ...] = field(default=(), neutral=(), role=EXECUTION)
    """Patterns of modules whose parameters stay whole on every rank."""
    shard_size: int | None = field(default=None, neutral=None, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share one copy of the parameters (HSDP below the world size); None takes all."""
    offload: bool = field(default=False, neutral=False, role=EXECUTION)
    """Whether shards, gradients and the optimizer's state lie in the host's memory."""
    forward_prefetch: int = field(default=0, neutral=0, ge=0, role=EXECUTION, unit="units")
    """Units whose gathering a unit begins before its forward pass; 0 leaves it to FSDP2."""
    backward_prefetch: int = field(default=0, neutral=0, ge=0, role=EXECUTION, unit="units")
    """Units whose gathering a unit begins before its backward pass; 0 leaves it to FSDP2, which takes one."""


@spec("parallel")
class ParallelSpec:
    """Ranks that work on one sample; the rest of the world is data-parallel."""

    ulysses: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the tokens and exchange heads in attention; divides the heads."""
    ring: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the tokens and pass keys and values round."""
    tensor: int = field(default=1, ge=1, role=EXECUTION, unit="ranks")
    """Ranks that share the matrices of attention and feed-forward; divides the heads."""

    @property
    def ranks_per_sample(self) -> int:
        """The product of the degrees."""
        return math.prod((self.ulysses, self.ring, self.tensor))


class Recompute(enum.Enum):
    """What the backward pass computes again instead of keeping it."""

    NONE = "none"
    FULL = "full"
    """Everything inside the matching modules; only their inputs are kept."""
    SELECTIVE = "selective"
    """Everything but the output of attention."""


@spec("recompute")
class RecomputeSpec:
    """Activation checkpointing."""

    mode: Recompute = field(default=Recompute.NONE, role=EXECUTION)
    """What is computed again: nothing, all inside the modules, or all but attention's output."""
    modules: tuple[str, ...] = field(default=("blocks.*",), role=EXECUTION)
    """Glob patterns over the names of the modules that are computed again."""
    offload: bool = field(default=False, role=EXECUTION)
    """Whether what is kept waits in the host's pinned memory."""
    offload_ahead: int = field(default=1, neutral=1, ge=0, le=1_000, role=EXECUTION, unit="modules")
    """Modules whose kept values are brought back ahead of the backward pass."""


class CompileMode(enum.Enum):
    """torch.compile's presets."""

    DEFAULT = "default"
    REDUCE_OVERHEAD = "reduce-overhead"
    MAX_AUTOTUNE = "max-autotune"
    MAX_AUTOTUNE_NO_CUDAGRAPHS = "max-autotune-no-cudagraphs"


class CompileBackend(enum.Enum):
    """torch.compile's backends."""

    INDUCTOR = "inductor"
    AOT_EAGER = "aot_eager"
    EAGER = "eager"


@spec("compile")
class CompileSpec:
    """torch.compile of each block."""

    enabled: bool = field(default=False, role=EXECUTION)
    """Whether blocks are compiled."""
    backend: CompileBackend = field(default=CompileBackend.INDUCTOR, role=EXECUTION)
    """The compiler."""
    mode: CompileMode = field(default=CompileMode.DEFAULT, role=EXECUTION)
    """The compiler's preset; all but the default belong to inductor."""
    fullgraph: bool = field(default=True, role=EXECUTION)
    """Whether a graph break is an error."""
    dynamic: bool = field(default=False, role=EXECUTION)
    """Whether sizes are compiled as variables."""


class AttentionImpl(enum.Enum):
    """The implementation of attention."""

    AUTO = "auto"
    """The fastest exact one of the device."""
    REFERENCE = "reference"
    SDPA = "sdpa"
    CUDNN = "cudnn"
    FLASH_2 = "flash_2"
    FLASH_3 = "flash_3"
    FLASH_4 = "flash_4"
    """Refused: not exact, so `approximate_attention` of generation has it."""
    NPU = "npu"
    SAGE = "sage"
    """Refused: not exact, so `approximate_attention` of generation has it."""


NO_PARALLEL = ParallelSpec(ulysses=1, ring=1, tensor=1)
NO_RECOMPUTE = RecomputeSpec(mode=Recompute.NONE, modules=("blocks.*",), offload=False)
NO_COMPILE = CompileSpec(
    enabled=False,
    backend=CompileBackend.INDUCTOR,
    mode=CompileMode.DEFAULT,
    fullgraph=True,
    dynamic=False,
)

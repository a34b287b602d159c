"""Low-rank adapters."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, field
from mm_config.specs.kinds import Weights


class LoraInit(enum.Enum):
    """First values of an adapter; its product is zero in each case."""

    KAIMING = "kaiming"
    GAUSSIAN = "gaussian"


@spec("lora")
class LoraSpec:
    """Trains low-rank adapters instead of the network."""

    rank: int = field(default=16, ge=1, le=65_536)
    """Inner width of an adapter."""
    alpha: float = field(default=16.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    dropout: float = field(default=0.0, ge=0, lt=1)
    """Share of an adapter's input values that is dropped."""
    targets: tuple[str, ...] = field(
        default=(
            "blocks.*.attn*.to_q",
            "blocks.*.attn*.to_k",
            "blocks.*.attn*.to_v",
            "blocks.*.attn*.to_out.0",
        ),
        min_length=1,
    )
    """Glob patterns over the names of linear layers."""
    init: LoraInit = LoraInit.KAIMING
    """First values of an adapter."""
    start_from: Weights | None = None
    """Adapters to go on with; None starts anew."""


@spec("applied-lora")
class AppliedLoraSpec:
    """An adapter that generation adds to the experts."""

    high_noise: Weights | None = None
    """Adapter of the high-noise expert, or of the single network; None leaves it alone."""
    low_noise: Weights | None = None
    """Adapter of the low-noise expert."""
    strength: float = 1.0
    """Weight of the adapter."""
    merge: bool = field(default=True, role=EXECUTION)
    """Whether it is added to the weights once, or beside them in each pass."""

"""What a plan is made of before it is held against a device: work, memory and traffic."""

from __future__ import annotations

import attrs

from mm_config.specs.dtype import Dtype


@attrs.frozen
class Work:
    """The floating-point operations of a training step, or of a generated video."""

    tokens: int
    """Tokens of one sample."""
    samples: int
    """Clips of a step; 1 for a video."""
    flops_by_part: dict[str, int]
    """One sample's forward pass."""
    step_flops: int
    """Model FLOPs: what the result needs; recomputation is not counted."""
    product_flops: int
    """Executed outside of attention's kernels."""
    attention_forward_flops: int
    """Executed by attention's kernels in forward passes, those of recomputation included."""
    attention_backward_flops: int
    """Executed by attention's kernels in backward passes, counted as two forward passes."""
    dtype: Dtype
    """Format of the computation."""
    allow_tf32: bool
    """Whether float32 products may round their factors."""
    ranks: int
    """Ranks that share the work evenly."""

    @property
    def forward_flops(self) -> int:
        """One sample's forward pass."""
        return sum(self.flops_by_part.values())

    @property
    def executed_flops(self) -> int:
        """All that is computed, recomputation included."""
        return self.product_flops + self.attention_forward_flops + self.attention_backward_flops


@attrs.frozen
class Memory:
    """What occupies a rank's device and, for it, the host."""

    phases: dict[str, dict[str, int]]
    """Bytes on the device by what they are for, in each phase of a step or a video."""
    host: dict[str, int]
    """Bytes in the host's memory."""
    activations_by_recompute: dict[str, int]
    """Training: bytes of the network's activations in each mode."""

    @property
    def fullest(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def bytes(self) -> dict[str, int]:
        """What is on the device in the fullest phase."""
        return self.phases[self.fullest]

    @property
    def total(self) -> int:
        """Bytes on the device in the fullest phase."""
        return sum(self.bytes.values())


@attrs.frozen
class Flow:
    """Bytes that one rank sends or receives in a training step, or for a video."""

    name: str
    bytes: int
    span: int
    """Ranks among which it flows; 0 between the device and its host."""


def ceil_div(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)

"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import enum

from mm_config.schema.decorator import spec
from mm_config.schema.fields import EXECUTION, field
from mm_config.specs.kinds import OptimizerSpec


@spec("parameter-group")
class ParameterGroupSpec:
    """Parameters that are trained differently from the rest."""

    parameters: tuple[str, ...] = field(min_length=1)
    """Glob patterns over parameter names, such as `blocks.*.norm2.bias`; the first group that fits counts."""
    lr_scale: float = field(default=1.0, ge=0)
    """Their learning rate as a multiple of the optimizer's."""
    weight_decay: float | None = field(default=None, ge=0)
    """Their decoupled weight decay; None takes the optimizer's."""


@spec("adamw")
class AdamWSpec(OptimizerSpec):
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
    groups: tuple[ParameterGroupSpec, ...] = field(default=(), neutral=())
    """Parameters with a learning rate or a weight decay of their own."""
    adaptive_clip_decay: float | None = field(default=None, neutral=None, gt=0, lt=1)
    """Clips to a moving average of the norm with this decay (MindSpeed-MM: 0.99) instead; None does not."""
    state_bits: int = field(default=32, neutral=32, ge=8, le=32, unit="bits")
    """Size of a stored moment: 32, or 8 with torchao's quantised AdamW."""


@spec("muon")
class MuonSpec(OptimizerSpec):
    """Muon for the matrices inside blocks, AdamW for all other parameters."""

    lr: float = field(default=1e-5, gt=0)
    """Peak learning rate of both."""
    momentum: float = field(default=0.95, ge=0, lt=1)
    """Momentum of Muon."""
    nesterov: bool = True
    """Whether the momentum looks ahead."""
    newton_schulz_steps: int = field(default=5, ge=1, le=99)
    """Iterations of the orthogonalisation."""
    matched_adamw_rms: float = field(default=0.2, gt=0)
    """Updates are scaled to this root mean square, so that AdamW's learning rates fit."""
    betas: tuple[float, float] = field(default=(0.9, 0.999), ge=0, lt=1)
    """AdamW: decay rates of the first and second moments."""
    eps: float = field(default=1e-8, gt=0)
    """AdamW: added to the denominator."""
    weight_decay: float = field(default=0.01, ge=0)
    """Decoupled weight decay of both."""
    max_grad_norm: float = field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
    groups: tuple[ParameterGroupSpec, ...] = ()
    """Parameters with a learning rate or a weight decay of their own."""


class Decay(enum.Enum):
    """How the learning rate falls after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"
    WSD = "wsd"
    """Constant, then linear over the last `decay_steps` (warm-up, stable, decay)."""


@spec("schedule")
class ScheduleSpec:
    """How long to train and how the learning rate moves."""

    steps: int = field(ge=1)
    """Optimizer steps."""
    warmup_steps: int = field(default=0, ge=0)
    """Steps of linear warm-up."""
    decay: Decay = Decay.CONSTANT
    """How the learning rate falls after the warm-up."""
    final_ratio: float = field(default=0.0, ge=0, le=1)
    """Learning rate of the last step as a share of the peak, where it decays."""
    warmup_ratio: float = field(default=0.0, neutral=0.0, ge=0, le=1)
    """Learning rate at which the warm-up starts, as a share of the peak."""
    decay_steps: int | None = field(default=None, neutral=None, ge=1)
    """With `decay = wsd`: the steps over which the learning rate falls."""


@spec("ema")
class EmaSpec:
    """A moving average of the weights, kept beside them."""

    decay: float = field(default=0.9999, gt=0, lt=1)
    """Share of the average that stays at each update."""
    every_steps: int = field(default=1, ge=1, unit="steps")
    """Steps between updates."""
    start_step: int = field(default=0, ge=0)
    """Step at which the average starts from the weights."""
    offload: bool = field(default=False, role=EXECUTION)
    """Whether the average lies in the host's memory."""

"""AdamW, its learning rate as a pure function of the step, and its state as named tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from mm_config.specs.kinds import OptimizerSpec
from mm_config.specs.optim import AdamWSpec, Decay, ScheduleSpec
from mm_models.device import updates_in_one_kernel

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(network: nn.Module, spec: OptimizerSpec, device: torch.device) -> AdamW:
    """AdamW over all trainable parameters; to be called after sharding, which replaces them."""
    assert isinstance(spec, AdamWSpec), "check_carried_out refuses other optimizers"
    return AdamW(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        fused=updates_in_one_kernel(device),
    )


def learning_rate(step: int, peak: float, schedule: ScheduleSpec) -> float:
    """The learning rate of step `step`, counted from 0.

    Warm-up: the rate of step i is (i + 1) / warmup_steps of the way from `warmup_ratio` to the peak, so that
    the first step already learns and the peak is reached with the warm-up's last step. Then the rate falls
    to `peak * final_ratio`, which is that of the very last step; with WSD over the last `decay_steps`.
    """
    if step < schedule.warmup_steps:
        start = peak * schedule.warmup_ratio
        return start + (peak - start) * (step + 1) / schedule.warmup_steps
    if schedule.decay is Decay.CONSTANT:
        return peak
    first = schedule.warmup_steps
    if schedule.decay is Decay.WSD:
        assert schedule.decay_steps is not None, "rules.check asks for decay_steps with wsd"
        first = max(first, schedule.steps - 1 - schedule.decay_steps)
    length = schedule.steps - 1 - first
    progress = max(step - first, 0) / length if length > 0 else 1.0
    cosine = schedule.decay is Decay.COSINE
    left = 0.5 * (1.0 + math.cos(math.pi * progress)) if cosine else 1.0 - progress
    return peak * (schedule.final_ratio + (1.0 - schedule.final_ratio) * left)


def set_learning_rate(optimizer: AdamW, lr: float) -> None:
    """Sets the rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def named_moments(network: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """Both moments of every trainable parameter as `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`.

    Names of parameters, not places in a list, so that another sharding can load them.
    """
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        for moment in MOMENTS
    }


def make_moments(network: nn.Module, optimizer: AdamW, step: int) -> None:
    """Gives the optimizer the state it has after `step` updates, with moments of zero to be filled."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            # The fused kernel counts updates beside the parameter, the others on the CPU.
            device = parameter.device if optimizer.defaults["fused"] else None
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=device),
                **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
            }

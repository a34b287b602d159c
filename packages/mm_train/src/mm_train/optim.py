"""Optimizers, their learning rate as a pure function of the step, and their state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mm_config.rules import matching
from mm_config.schema import tag_of
from mm_config.specs import AdamWSpec, Decay, OptimizerSpec, ParameterGroupSpec, ScheduleSpec
from mm_models import builder_of
from mm_models.device import updates_in_one_kernel
from mm_train.eight_bits import adamw_of_bytes

STEP = "step"
"""Under which torch's optimizers count the updates of a parameter."""


def build_optimizer(network: nn.Module, spec: OptimizerSpec, device: torch.device) -> Optimizer:
    """The optimizer of a spec's class; to be called after sharding, which replaces parameters.

    Installed packages declare `build(network, spec, device) -> Optimizer` in the entry-point group
    `mm.optimizers`, by the wire tag of the spec's class. It is over all trainable parameters, keeps its state
    as tensors from the first update on, and takes its rate from each group's `lr`.

    Raises:
        UserError: None is installed for the class.
    """
    return builder_of("mm.optimizers", tag_of(spec))(network, spec, device)


def adamw(network: nn.Module, spec: AdamWSpec, device: torch.device) -> Optimizer:
    """AdamW, in one kernel where the device has it; with moments of 8 bits, torchao's."""
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    groups = grouped(trained, spec.groups, spec.weight_decay)
    if spec.state_bits == 8:
        return adamw_of_bytes(groups, spec)
    return AdamW(
        groups,
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        fused=updates_in_one_kernel(device),
    )


def grouped(
    parameters: Mapping[str, nn.Parameter],
    groups: Sequence[ParameterGroupSpec],
    weight_decay: float,
    *,
    lr_scale: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameters as groups of torch's optimizers: those of the spec's, the first that fits, then the rest.

    Each has its `weight_decay`, and as `lr_scale` the rate that `set_learning_rate` gives it, as a multiple.

    Args:
        parameters: By name.
        groups: What is trained differently.
        weight_decay: Of the rest, and of groups that have none of their own.
        lr_scale: What all rates are multiplied by. Decay is that per step, whatever this is.
    """
    rest, found = dict(parameters), list[dict[str, Any]]()
    for group in (*groups, ParameterGroupSpec(parameters=("*",))):
        names = {name: None for glob in group.parameters for name in matching(rest, glob, parameters=True)}
        decay = weight_decay if group.weight_decay is None else group.weight_decay
        scales = {"lr_scale": group.lr_scale * lr_scale, "weight_decay": decay / lr_scale}
        if names:
            found.append({"params": [rest.pop(name) for name in names], **scales})
    return found


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


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Sets the rate of the next update, of each group as a multiple of `lr`."""
    for group in optimizer.param_groups:
        _set(group, lr * group.get("lr_scale", 1.0))


def _set(group: dict[str, Any], lr: float) -> None:
    """Sets a group's rate, which is a tensor on the host where an update is compiled."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def updated_by(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of all its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def named_moments(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps of each parameter, such as `<parameter>.exp_avg`; no count of steps.

    Names of parameters, not places in a list, so that another sharding can load them. An optimizer whose
    moments consist of several tensors tells them by `stored_parts(moment)`, by what is added to the name.
    """
    parts_of = getattr(optimizer, "stored_parts", lambda moment: {"": moment})
    return {
        f"{name}.{kept}{part}": tensor
        for name, parameter in network.named_parameters()
        for kept, value in optimizer.state.get(parameter, {}).items()
        if kept != STEP and isinstance(value, Tensor)
        for part, tensor in parts_of(value).items()
    }


def make_moments(network: nn.Module, optimizer: Optimizer, step: int) -> None:
    """Gives the optimizer the tensors it has after `step` updates, to be filled; weights keep their values.

    Optimizers make their tensors in their first update, so there is one at a rate of 0 where none was.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not all(optimizer.state.get(parameter) for parameter in trained):
        _update_by_nothing(trained, optimizer)
    for kept in optimizer.state.values():
        if STEP in kept:
            kept[STEP].fill_(step)


def _update_by_nothing(trained: Sequence[nn.Parameter], optimizer: Optimizer) -> None:
    """An update that leaves the weights as they are."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    set_learning_rate(optimizer, 0.0)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        _set(group, rate)

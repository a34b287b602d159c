"""Muon for the matrices inside blocks, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from mm_config.specs import MuonSpec
from mm_models.device import updates_in_one_kernel
from mm_train.clipping import local_of
from mm_train.optim import grouped
from mm_train.turns import in_turns

MATCHED_RMS = 0.2
"""RMS of torch's updates with `match_rms_adamw`: 0.2 sqrt(max(rows, columns)) U, U orthogonal."""


class Several(Optimizer):
    """Optimizers over different parameters, which share their groups and states with this one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of each; there is no closure."""
        assert closure is None
        for part in self.parts:
            part.step()


class MuonInTurns(Muon):
    """torch's Muon, whose step is the same to the bit on any number of ranks."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; there is no closure."""
        assert closure is None
        momenta: dict[Tensor, Tensor] = {}
        group_of: dict[Tensor, dict[str, Any]] = {}
        for group in self.param_groups:
            found: tuple[list[Tensor], list[Tensor], list[Tensor]] = [], [], []
            self._init_group(group, *found)
            for parameter, gradient, momentum in zip(*found, strict=True):
                momentum.lerp_(gradient, 1 - group["momentum"])
                momenta[parameter], group_of[parameter] = momentum, group

        def ahead(parameter: Tensor) -> Tensor:
            momentum, group = momenta[parameter], group_of[parameter]
            assert parameter.grad is not None
            looked = parameter.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            return looked.bfloat16()

        def orthogonal(parameter: Tensor, whole: Tensor) -> Tensor:
            group = group_of[parameter]
            return _zeropower_via_newtonschulz(
                whole, group["ns_coefficients"], group["ns_steps"], group["eps"]
            )

        for parameter, update in in_turns(list(momenta), ahead, orthogonal):
            group = group_of[parameter]
            lr, decay = float(group["lr"]), float(group["lr"]) * group["weight_decay"]
            own = local_of(parameter)
            own.mul_(1 - decay)
            own.add_(update, alpha=-_adjust_lr(lr, group["adjust_lr_fn"], parameter.shape))


def muon(network: nn.Module, spec: MuonSpec, device: torch.device) -> Optimizer:
    """torch's Muon and AdamW, see `MuonSpec`.

    The orthogonalisation is torch's: Newton-Schulz in bfloat16, whatever the weights are kept in. Of matrices
    that ranks share by rows each rank takes some whole, see `in_turns`.
    """
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    matrices = {name: value for name, value in trained.items() if is_matrix(name, value)}
    others = {name: value for name, value in trained.items() if name not in matrices}
    parts: list[Optimizer] = []
    if matrices:
        scale = spec.matched_adamw_rms / MATCHED_RMS
        parts.append(
            MuonInTurns(
                grouped(matrices, spec.groups, spec.weight_decay, lr_scale=scale),
                lr=spec.lr,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                ns_steps=spec.newton_schulz_steps,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        parts.append(
            AdamW(
                grouped(others, spec.groups, spec.weight_decay),
                lr=spec.lr,
                betas=spec.betas,
                eps=spec.eps,
                fused=updates_in_one_kernel(device),
            )
        )
    return Several(parts)


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether Muon takes a parameter: a matrix inside an item of a list of modules, such as `blocks.3`."""
    return value.ndim == 2 and any(part.isdecimal() for part in name.split("."))

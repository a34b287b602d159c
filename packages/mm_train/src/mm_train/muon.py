"""Muon for the matrices inside blocks, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from mm_config.specs import MuonSpec
from mm_models.device import updates_in_one_kernel
from mm_train.optim import grouped

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


def muon(network: nn.Module, spec: MuonSpec, device: torch.device) -> Optimizer:
    """torch's Muon and AdamW, see `MuonSpec`.

    The orthogonalisation is torch's: Newton-Schulz in bfloat16, whatever the weights are kept in. A sharded
    matrix is gathered for it; where products are then summed in another order than on one process, updates
    differ by bfloat16's rounding.
    """
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    matrices = {name: value for name, value in trained.items() if is_matrix(name, value)}
    others = {name: value for name, value in trained.items() if name not in matrices}
    parts: list[Optimizer] = []
    if matrices:
        scale = spec.matched_adamw_rms / MATCHED_RMS
        parts.append(
            Muon(
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

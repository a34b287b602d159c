"""The update of a step, which numbers that are not finite can't spoil; decided where the numbers are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from mm_train.clipping import local_of
from mm_train.optim import updated_by


def update(optimizer: Optimizer, numbers: Iterable[Tensor], bad: Tensor) -> None:
    """One update, unless a number of this step or of one before is not finite; forgets the gradients.

    Optimizers that can be told so on the device (torch's fused ones, by `found_inf`) then leave weights,
    moments and their count of steps as they were. Others get gradients of 0: their moments go on, so nothing
    that is not finite reaches them, and the run ends before such a state is saved.

    Args:
        optimizer: Those of its parameters are updated that have gradients.
        numbers: The loss and the norm, equal on all ranks.
        bad: A float32 scalar on the device, 0 until a number is not finite and 1 from then on; written here.
    """
    gradients = [local_of(one.grad) for one in updated_by(optimizer) if one.grad is not None]
    finite = torch.stack(list(numbers)).isfinite().all()
    torch.maximum(bad, (~finite).float(), out=bad)
    spoilt = bad.to(gradients[0].device)
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = spoilt  # type: ignore[attr-defined]
    else:
        torch._foreach_mul_(gradients, 1.0 - spoilt)  # type: ignore[attr-defined]
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
    optimizer.step()
    optimizer.zero_grad()

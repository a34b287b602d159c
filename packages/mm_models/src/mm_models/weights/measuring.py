"""How much the tensors of two files differ."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mm_config.durable import require_regular
from mm_config.schema import Problem, UserError


def largest_differences(old: Path, new: Path) -> dict[str, float]:
    """Of each tensor that both files have in one shape, the largest difference by the largest magnitude.

    Where only one of two elements is a finite number, that counts as the whole magnitude.

    Raises:
        UserError: A file can't be read.
    """
    found: dict[str, float] = {}
    try:
        require_regular(old)
        require_regular(new)
        with safe_open(old, "pt") as before, safe_open(new, "pt") as after:
            for name in set(before.keys()) & set(after.keys()):
                was, is_now = before.get_tensor(name).double(), after.get_tensor(name).double()
                if was.shape == is_now.shape and was.numel():
                    found[name] = _share(was, is_now)
    except (OSError, SafetensorError) as error:
        raise UserError(Problem(str(old), f"can't be compared with {new}: {error}")) from error
    return found


def _share(was: torch.Tensor, is_now: torch.Tensor) -> float:
    magnitude = torch.stack((was, is_now)).nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    equal = (was == is_now) | (was.isnan() & is_now.isnan())
    difference = (was - is_now).abs().nan_to_num(nan=magnitude, posinf=magnitude)
    return difference.masked_fill(equal, 0.0).max().item() / (magnitude or 1.0)

"""Whether the checkpoints of a training fit on the disk, asked before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from mm_config.options import RunOptions
from mm_config.schema import Problem, UserError
from mm_config.specs import AdamWSpec, MuonSpec, TrainSpec
from mm_models import checkpoint
from mm_train.muon import is_matrix
from mm_train.states import trained_state


def require_room(spec: TrainSpec, options: RunOptions, network: nn.Module) -> None:
    """Holds the checkpoints that will lie there at a time against what the disk has free.

    Args:
        spec: What is trained.
        options: Where its run will lie, and which run goes on, whose checkpoints are there already.
        network: On meta, with what is trained decided.

    Raises:
        UserError: There is too little.
    """
    before = options.resume and checkpoint.newest_first(Path(options.resume) / "checkpoints")
    number, size = checkpoints_at_once(spec, options.stop_after), checkpoint_bytes(spec, network)
    place = Path(options.runs_dir).absolute()
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.is_dir())).free
    where = options.name_of("runs_dir")
    if (needed := max(number - len(before or ()), 1) * size) > free:
        raise UserError(
            Problem(
                "spec.checkpoint",
                f"{number} checkpoints of {_gb(size)} lie on the disk at a time; {_gb(needed)} more are "
                f"needed in {options.runs_dir}, {_gb(free)} are free; keep fewer or take another {where}",
            )
        )


def checkpoints_at_once(spec: TrainSpec, stop_after: int | None = None) -> int:
    """How many there are at most: those that are kept, the best, and the one that is being written."""
    steps, keep = min(spec.schedule.steps, stop_after or spec.schedule.steps), spec.checkpoint
    written = -(-steps // keep.every_steps)
    for_ever = steps // keep.keep_every if keep.keep_every else 0
    return min(written, keep.keep_last + 1 + for_ever + (spec.validation is not None))


def checkpoint_bytes(spec: TrainSpec, network: nn.Module) -> int:
    """The tensors of a checkpoint, but for an optimizer that another package brings.

    Moments of 8 bits are taken as a byte for each value: their scales, and those that stay float32, are few.
    """
    trained = [(name, one) for name, one in network.named_parameters() if one.requires_grad]
    values = sum(one.numel() for _, one in trained)
    if isinstance(spec.optim, AdamWSpec):
        moments = values * 2 * spec.optim.state_bits // 8
    elif isinstance(spec.optim, MuonSpec):
        moments = sum((4 if is_matrix(name, one) else 8) * one.numel() for name, one in trained)
    else:
        moments = 0
    weights = sum(one.numel() * one.dtype.itemsize for one in trained_state(network).values())
    return weights + moments + (0 if spec.ema is None else 4 * values)


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"

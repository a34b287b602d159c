"""Fills tensors, plain or sharded, from stored ones; each rank reads its own part and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from mm_config.console import progress
from mm_config.schema import UserError
from mm_models.shards import own_region
from mm_models.weights.differences import compare
from mm_models.weights.tensors import StoredTensor

SHOWN_BYTES = 10**9
"""Loads that read less on a rank are done before a bar could tell anything."""


@torch.no_grad()
def fill(
    targets: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], path: Path, *, bar: bool = True
) -> None:
    """Copies stored values into tensors, in the order in which they lie on the disk.

    The local part is read where a target is a DTensor, straight into its memory where dtype and layout allow
    it, otherwise cast through a small buffer. Nothing is sent between ranks: all of them see the same files
    and come to the same result. Rank 0 shows a bar for large loads.

    Args:
        targets: By name, with memory.
        stored: By the same names.
        path: Where they are stored, for errors.
        bar: Whether large loads show one.

    Raises:
        UserError: Names, shapes or dtypes don't fit; nothing is touched then. Or a file is cut short while
            it is read, or is not what was written.
    """
    require_fit(targets, stored, path)
    names = sorted(targets, key=lambda name: stored[name].place)
    size = sum(_local(target).numel() * stored[name].dtype.itemsize for name, target in targets.items())
    place = cache(compute_local_shape_and_global_offset)  # Networks have few shapes.
    shown = progress(f"load {path.name}", len(names), unit="tensor", every=max(1, len(names) // 10))
    with shown if bar and size >= SHOWN_BYTES else nullcontext() as advancing:
        for name in names:
            stored[name].pour(own_region(targets[name], place), _local(targets[name]))
            if advancing is not None:
                advancing.advance()
    for name in names:
        stored[name].settle()


def require_fit(targets: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], path: Path) -> None:
    """Compares stored tensors with those that they are to fill; these may be on meta.

    Raises:
        UserError: Names, shapes or dtypes differ.
    """
    wanted = {name: tuple(target.shape) for name, target in targets.items()}
    if differing := compare(stored, wanted, {name: target.dtype for name, target in targets.items()}):
        raise UserError(differing.problems(str(path)))


def _local(target: Tensor) -> Tensor:
    return target.to_local() if isinstance(target, DTensor) else target

"""Fills networks, plain or sharded, from opened weights; each rank reads its own part and nothing else."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from mm_config.console import progress
from mm_config.errors import UserError
from mm_models.weights.differences import compare
from mm_models.weights.opening import open_weights
from mm_models.weights.tensors import Region


@torch.no_grad()
def load_weights(network: nn.Module, path: Path, *, shown: bool = True) -> None:
    """Fills a network from weights of any kind that `open_weights` knows.

    One tensor is read at a time, the local part of it where the parameter is a DTensor, and cast to the
    parameter's dtype. Nothing is sent between ranks: all of them see the same files and come to the same
    result.

    Args:
        network: On its device, with memory for its parameters.
        path: The weights.
        shown: Whether progress is shown.

    Raises:
        UserError: The weights can't be read or don't fit; no parameter is touched then, unless a file is
            found damaged while it is read.
    """
    weights = open_weights(path)
    targets: dict[str, Tensor] = network.state_dict()
    if differing := compare(weights.tensors, {name: tuple(value.shape) for name, value in targets.items()}):
        raise UserError(differing.problems(str(path)))
    bar = progress(f"load {path.name}", len(targets), unit="tensor", every=max(1, len(targets) // 10))
    with bar if shown else nullcontext() as advancing:
        for name, target in targets.items():
            _copy(weights.tensors[name].read(_region(target)), target)
            if advancing is not None:
                advancing.advance()


def _copy(values: Tensor, target: Tensor) -> None:
    (target.to_local() if isinstance(target, DTensor) else target).copy_(values)


def _region(target: Tensor) -> Region:
    """The part of the whole tensor that this rank holds; an empty shard has none."""
    if not isinstance(target, DTensor):
        return tuple(slice(0, size) for size in target.shape)
    sizes, offsets = compute_local_shape_and_global_offset(
        target.shape, target.device_mesh, target.placements
    )
    return tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))

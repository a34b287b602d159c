"""The global norm of gradients, sharded or not, and clipping by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales all gradients down together so that their global L2 norm is at most `max_norm`.

    Returns:
        The norm before, a scalar on the gradients' device: reading it is the caller's choice of moment.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = global_norm(gradients)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([local_of(gradient) for gradient in gradients], scale)  # type: ignore[attr-defined]
    return norm


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """sqrt of the sum of all squares, over plain tensors and DTensors of any number of meshes.

    Each rank sums the squares of its shards; one all-reduce per group of ranks adds them up, so that tensors
    sharded over different groups, and plain ones, can be mixed.
    """
    by_groups: defaultdict[tuple[dist.ProcessGroup, ...], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        by_groups[_shard_groups(tensor)].append(local_of(tensor))
    assert by_groups, "there are no gradients"
    squares = []
    for groups, locals_ in by_groups.items():
        square = torch.nn.utils.get_total_norm(locals_).square()
        for group in groups:
            dist.all_reduce(square, group=group)
        squares.append(square)
    return torch.stack(squares).sum().sqrt()


def _shard_groups(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups of ranks over which a tensor is split; none for a plain tensor."""
    if not isinstance(tensor, DTensor):
        return ()
    return tuple(
        tensor.device_mesh.get_group(axis)
        for axis, placement in enumerate(tensor.placements)
        if isinstance(placement, Shard)
    )


def local_of(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

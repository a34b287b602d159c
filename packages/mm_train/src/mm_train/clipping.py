"""The global norm of gradients, sharded or not, and clipping by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import attrs
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from mm_config.specs import AdamWSpec, OptimizerSpec


@attrs.frozen
class Clipping:
    """To which norm gradients are clipped.

    With a decay, that is a moving average of the norms before clipping of all earlier steps, which begins as
    `max_norm`:

        average = decay * average + (1 - decay) * norm

    A norm that is not finite leaves it as it is.
    """

    max_norm: float
    """The greatest norm where there is no decay."""
    decay: float | None
    """Share of the average that stays at each step; None clips to `max_norm` always."""
    average: Tensor
    """A scalar on the gradients' device, equal on all ranks."""

    def clip(self, parameters: Iterable[Tensor]) -> Tensor:
        """Scales gradients down, and follows their norm, which is returned: a scalar on their device."""
        if self.decay is None:
            return clip_gradients(parameters, self.max_norm)
        norm = clip_gradients(parameters, self.average)
        following = self.average.lerp(norm, 1 - self.decay)
        self.average.copy_(torch.where(norm.isfinite(), following, self.average))
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        return {} if self.decay is None else {"average": self.average}


def clipping_of(spec: OptimizerSpec, device: torch.device) -> Clipping:
    """How an optimizer's gradients are clipped, before the first step."""
    decay = spec.adaptive_clip_decay if isinstance(spec, AdamWSpec) else None
    return Clipping(spec.max_grad_norm, decay, torch.full((), spec.max_grad_norm, device=device))


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | Tensor) -> Tensor:
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
        if not placement.is_replicate()
    )


def local_of(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

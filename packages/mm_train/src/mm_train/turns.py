"""Work on whole matrices of which each rank holds rows: ranks take turns, one matrix each at a time.

Split over ranks as DTensors split it, every product of such work would gather an operand. Here a matrix
travels twice: its rows to the rank whose turn it is, and the rows of the result back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.functional import pad

from mm_train.clipping import local_of

Value = Callable[[Tensor], Tensor]
"""Of a matrix, the values that are worked on, placed as it is."""
Work = Callable[[Tensor, Tensor], Tensor]
"""Of a matrix and those values, whole: a result of their shape and dtype."""


def in_turns(matrices: Sequence[Tensor], value: Value, work: Work) -> Iterator[tuple[Tensor, Tensor]]:
    """Each matrix with this rank's part of the result.

    The largest come first, so that ranks work on equals at a time. Only as many are whole at once as a rank
    works on, which is one. What is also split by tensor parallelism is gathered, and worked on by all ranks.

    Args:
        matrices: Plain or sharded, in the same order on all ranks.
        value: See `Value`.
        work: See `Work`; the same to the bit wherever it is called.
    """
    shared: defaultdict[ProcessGroup, list[DTensor]] = defaultdict(list)
    for matrix in sorted(matrices, key=Tensor.numel, reverse=True):
        cut = _cut_along(matrix)
        if not cut:
            yield matrix, work(matrix, local_of(value(matrix)))
        elif len(cut) == 1 and matrix.placements[cut[0]].is_shard(0):  # type: ignore[attr-defined]
            shared[matrix.device_mesh.get_group(cut[0])].append(matrix)  # type: ignore[arg-type]
        else:
            yield matrix, _everywhere(matrix, value, work)  # type: ignore[arg-type]
    for group, rows in shared.items():
        for start in range(0, len(rows), group.size()):
            turn = rows[start : start + group.size()]
            yield from zip(turn, _turn(turn, value, work, group), strict=True)


def _cut_along(matrix: Tensor) -> list[int]:
    """The axes of its mesh along which several ranks have different parts of a matrix."""
    if not isinstance(matrix, DTensor):
        return []
    mesh = matrix.device_mesh
    return [
        axis for axis, at in enumerate(matrix.placements) if mesh.size(axis) > 1 and not at.is_replicate()
    ]


def _everywhere(matrix: DTensor, value: Value, work: Work) -> Tensor:
    """This rank's part of the result, which every rank makes whole."""
    made = work(matrix, value(matrix).full_tensor())  # type: ignore[attr-defined]
    whole = [Replicate()] * matrix.device_mesh.ndim
    placed = DTensor.from_local(made, matrix.device_mesh, whole, run_check=False)
    return placed.redistribute(placements=matrix.placements).to_local()


def _turn(turn: Sequence[DTensor], value: Value, work: Work, group: ProcessGroup) -> Iterator[Tensor]:
    """This rank's rows of the results, of at most as many matrices as there are ranks."""
    ranks, own = group.size(), group.rank()
    heights = [-(-matrix.shape[0] // ranks) for matrix in turn]
    locals_ = [value(matrix).to_local() for matrix in turn]  # type: ignore[attr-defined]
    sent = [_filled(rows, height).flatten() for rows, height in zip(locals_, heights, strict=True)]
    sizes = [one.numel() for one in sent] + [0] * (ranks - len(turn))
    back = [sizes[own]] * ranks
    whole = sent[0].new_empty(sum(back))
    dist.all_to_all_single(whole, torch.cat(sent), back, sizes, group=group)
    if own < len(turn):
        height, width = turn[own].shape
        made = work(turn[own], whole.view(-1, width)[:height])
        whole = _filled(made, ranks * heights[own]).flatten()
    received = torch.cat(sent)
    dist.all_to_all_single(received, whole, sizes, back, group=group)
    for matrix, rows, part in zip(turn, locals_, received.split(sizes[: len(turn)]), strict=True):
        yield part.view(-1, matrix.shape[1])[: len(rows)]


def _filled(rows: Tensor, height: int) -> Tensor:
    """Rows, and zeros below them up to a height."""
    return pad(rows, (0, 0, 0, height - len(rows)))

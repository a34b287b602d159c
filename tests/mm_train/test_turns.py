"""Whole matrices that ranks work on in turns, against the same work on one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from mm_train.turns import in_turns
from tests.forked_ranks import RunRanks

SHAPES = ((8, 4), (6, 10), (3, 16), (9, 9), (2, 64))
"""With fewer rows than ranks, rows that no number of ranks divides, and a last round of one."""


def whole(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def work(_: Tensor, values: Tensor) -> Tensor:
    return values @ values.T @ values


def _by_rows(rank: int, ranks: int) -> None:
    mesh = init_device_mesh("cpu", (ranks,))
    worked_on = 0

    def counted(matrix: Tensor, values: Tensor) -> Tensor:
        nonlocal worked_on
        worked_on += 1
        return work(matrix, values)

    given = [distribute_tensor(whole(shape), mesh, [Shard(0)]) for shape in SHAPES]
    made = list(in_turns([*given, whole((3, 3))], lambda one: one * 2, counted))
    assert worked_on == 1 + len(range(rank, len(SHAPES), ranks))
    assert len(made) == len(SHAPES) + 1
    for matrix, part in made:
        expected = work(matrix, 2 * whole(tuple(matrix.shape)))
        if isinstance(matrix, DTensor):
            assert part.shape == matrix.to_local().shape
            part = DTensor.from_local(
                part, mesh, [Shard(0)], shape=matrix.shape, stride=matrix.stride()
            ).full_tensor()
        assert torch.equal(part, expected), matrix.shape


@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_works_on_its_matrices_and_all_have_the_rows(ranks: int, run_ranks: RunRanks) -> None:
    run_ranks(_by_rows, ranks, ranks=ranks)


def _by_rows_and_columns(rank: int) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    layer = torch.nn.Linear(6, 8, bias=False)
    with torch.no_grad():
        layer.weight.copy_(whole((8, 6)))
    # Rows are cut by the tensor ranks first, and each part again by the others.
    parallelize_module(layer, mesh["tensor"], ColwiseParallel())
    fully_shard(layer, mesh=mesh["shard"])
    by_columns = distribute_tensor(whole((8, 6)), mesh, [Shard(0), Shard(1)])
    made = list(in_turns([layer.weight, by_columns], lambda one: one.detach() * 2, work))
    for matrix, part in made:
        assert isinstance(matrix, DTensor)
        placed = DTensor.from_local(part, matrix.device_mesh, matrix.placements)
        assert torch.equal(placed.full_tensor(), work(matrix, 2 * whole((8, 6)))), matrix.placements
    assert torch.equal(layer.weight.full_tensor(), whole((8, 6)))  # type: ignore[operator]


def test_what_is_cut_twice_comes_back_in_its_places(run_ranks: RunRanks) -> None:
    run_ranks(_by_rows_and_columns, ranks=4)

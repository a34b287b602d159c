"""Runs a function on gloo ranks: forked, they cost no new interpreters."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

RunRanks = Callable[..., None]


def _rank(
    rank: int, world_size: int, store: str, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # What the tests before left may have threads, which a fork has not and can't wait for.
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


def all_ranks() -> DeviceMesh:
    """The layout of parameters where all ranks share one copy."""
    sizes = (1, dist.get_world_size(), 1)
    return init_device_mesh("cpu", sizes, mesh_dim_names=("copies", "shard", "tensor"))


@pytest.fixture
def run_ranks(tmp_path: Path) -> RunRanks:
    """Calls `function(rank, *args)` in the processes of one gloo group, two or as many as are named; any
    failure fails the test."""

    def run(function: Callable[..., None], *args: Any, ranks: int = 2) -> None:
        store = str(tmp_path / f"store-{function.__name__}")
        Path(store).unlink(missing_ok=True)  # Of an earlier group.
        mp.start_processes(_rank, args=(ranks, store, function, args), nprocs=ranks, start_method="fork")  # type: ignore[attr-defined]

    return run

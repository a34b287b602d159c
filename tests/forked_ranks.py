"""Runs a function on two gloo ranks: forked, they cost no new interpreters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RunRanks = Callable[..., None]


def _rank(
    rank: int, world_size: int, store: str, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


@pytest.fixture
def run_ranks(tmp_path: Path) -> RunRanks:
    """Calls `function(rank, *args)` in two processes of one gloo group; any failure fails the test."""

    def run(function: Callable[..., None], *args: Any) -> None:
        store = str(tmp_path / f"store-{function.__name__}")
        mp.start_processes(_rank, args=(2, store, function, args), nprocs=2, start_method="fork")  # type: ignore[attr-defined]

    return run

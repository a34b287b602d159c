"""Starts the ranks of a training as torchrun would, each a fork of the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mm_config.cli import exits
from mm_config.cli.main import main
from mm_config.specs.train import TrainSpec
from tests.mm_train.forked import Child, forked

_NUMBER = count()


@contextmanager
def launched(
    spec: TrainSpec,
    folder: Path,
    *arguments: object,
    ranks: int = 1,
    before: Callable[[int], object] = lambda rank: None,
) -> Generator[list[Child]]:
    """Starts a training by its command line; whoever is left at the end of the block is killed.

    Args:
        spec: What is trained.
        folder: Where output goes.
        arguments: Of the command line.
        ranks: How many processes; one has no process group.
        before: Called in each of them with its rank, before it begins.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if ranks > 1 else None

    def body(rank: int) -> None:
        torch.set_num_threads(1)
        exits.SPEAKING_SECONDS = 0.2  # Nobody ends all ranks with the first.
        if store is not None:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
            }
        before(rank)
        main(spec, [f"{spec.name}.py", *map(str, arguments)])

    number = next(_NUMBER)
    children = [
        forked(lambda rank=rank: body(rank), folder / f"output-{number}-{rank}") for rank in range(ranks)
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()

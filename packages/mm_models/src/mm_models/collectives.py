"""What ranks tell each other beside tensors of the network: JSON in a CPU tensor, never a pickle."""

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """This process among those of the process group; 0 of 1 where there is none."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_json(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Every rank's JSON value, in the order of ranks, on every rank.

    Args:
        value: This rank's.
        group: Of all ranks, taking CPU tensors; None takes the default one, by which the main thread speaks.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size)]
    dist.all_gather(sizes, torch.tensor([mine.numel()]), group=group)
    padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
    padded[: mine.numel()] = mine
    texts = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(texts, padded, group=group)
    pairs = zip(texts, sizes, strict=True)
    return [json.loads(bytes(text[: int(size)].tolist())) for text, size in pairs]


def gather_from_files(work: Callable[[], Any], group: dist.ProcessGroup | None = None) -> list[Any]:
    """What work with files gives on every rank, as JSON, in the order of ranks.

    Raises:
        OSError: It failed on a rank; every rank raises it, so that none waits for ever.
    """
    value: Any = None
    failure: tuple[int | None, str, str | None] | None = None
    try:
        value = work()
    except OSError as error:
        failure = (error.errno, error.strerror or str(error), error.filename and str(error.filename))
    found = gather_json([value, failure], group)
    if failed := next((failed for _, failed in found if failed), None):
        raise OSError(*failed)
    return [value for value, _ in found]


def write_on_first(write: Callable[[], None], group: dist.ProcessGroup | None = None) -> None:
    """Writes files on rank 0 while the others wait. Raises OSError on every rank where that fails."""
    rank, _ = rank_and_world_size()
    gather_from_files(lambda: write() if rank == 0 else None, group)

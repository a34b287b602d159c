"""Batches over groups of ranks that make different videos: who makes which, and how none waits too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from mm_infer.layout import Layout
from mm_infer.requests import Inputs


@attrs.frozen
class Deal:
    """The batch that a rank makes while other groups make theirs."""

    first: int
    """The number of its first request among all."""
    batch: Inputs
    """What is asked for."""


def turns(batches: Sequence[Inputs], layout: Layout) -> list[Deal | None]:
    """What this rank makes, turn by turn: groups of ranks take batches in their order. None where the last
    turn has fewer batches than there are groups."""
    deals: list[Deal | None] = []
    first = 0
    for batch in batches:
        deals.append(Deal(first, batch))
        first += len(batch.requests)
    groups = layout.data_ranks
    deals += [None] * (-len(deals) % groups)
    return deals[layout.data_rank :: groups]


def reached_a_step(layout: Layout) -> None:
    """Has groups of ranks that denoise different batches go on step by step, however long one takes."""
    if layout.data_ranks > 1:
        layout.ranks.any(True)


def wait_for_others(layout: Layout) -> None:
    """Waits until all groups have denoised their batches, never longer than for one step at a time."""
    if layout.data_ranks > 1:
        while layout.ranks.any(False):
            pass


def on_all_ranks(made: Mapping[int, Tensor], layout: Layout, place: torch.device) -> dict[int, Tensor]:
    """Tensors of all ranks on every rank, by their numbers.

    Args:
        made: This rank's, on the place; other ranks have other numbers.
        layout: The ranks, all of which call it.
        place: Where the tensors are.
    """
    found: dict[int, Tensor] = {}
    heads = layout.ranks.gather(
        [[number, str(one.dtype).removeprefix("torch."), list(one.shape)] for number, one in made.items()]
    )
    for rank, of_rank in enumerate(heads):
        for number, dtype, shape in of_rank:
            one = made[number].contiguous() if rank == layout.ranks.rank else None
            if one is None:
                one = torch.empty(shape, dtype=getattr(torch, dtype), device=place)
            if layout.ranks.world_size > 1:
                dist.broadcast(one, src=rank)
            found[number] = one
    return found

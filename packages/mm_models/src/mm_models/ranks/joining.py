"""Joining the process group of a run, and leaving it."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import _clear_sharding_prop_cache

from mm_config.console import set_by_torchrun
from mm_models.collectives import gather_json
from mm_models.ranks.together import Ranks
from mm_models.ranks.watching import Watch, naming, own_store, speaking


@contextmanager
def joined(
    device: torch.device, timeout: timedelta = timedelta(minutes=30), *, sharded: bool = False
) -> Generator[Ranks]:
    """Joins the process group that torchrun prepared, or the one that the caller already joined.

    Args:
        device: Where this process computes.
        timeout: A rank that waits longer for the others fails.
        sharded: Whether a single process without torchrun makes a group of its own, since what it does with
            FSDP2 needs one.

    Raises:
        UserError: RANK or WORLD_SIZE is no number.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), grouped=True)
        return
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    set_by_torchrun("RANK", 0)
    set_by_torchrun("WORLD_SIZE", 1, at_least=1)
    if not launched and not sharded:
        yield Ranks(0, 1, grouped=False)
        return
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    backend = backend_for(device)
    if launched:
        dist.init_process_group(backend, timeout=timeout, **_place_of_a_restart(timeout))
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=timeout, store=store, rank=0, world_size=1)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    try:
        if world_size == 1:
            yield Ranks(rank, world_size, grouped=True)
            return
        store = own_store(gather_json(uuid4().hex)[0])
        with speaking(Watch(rank, world_size, timeout, store)) as watch, naming(watch):
            yield Ranks(rank, world_size, grouped=True, watch=watch)
    finally:
        part()


def _place_of_a_restart(timeout: timedelta) -> dict[str, Any]:
    """Where ranks meet that torchrun starts again on one host. Its store lasts, and in it the addresses of
    ranks that have ended: who is earlier than rank 0 would look for those. On several hosts launchers count
    their starts differently, and nothing tells which belong together.
    """
    told = os.environ
    count = told.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = told.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and told.get("GROUP_WORLD_SIZE") == "1"
    if count == "0" or not shared:
        return {}
    place = told["MASTER_ADDR"], int(told["MASTER_PORT"])
    store = dist.TCPStore(*place, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"start-{count}", store)  # type: ignore[attr-defined]
    return {"store": store, "rank": int(told["RANK"]), "world_size": int(told["WORLD_SIZE"])}


def part(groups: Iterable[dist.ProcessGroup | None] = (None,)) -> None:
    """Leaves process groups and ends their threads; None is that of all ranks, with every other.

    DTensor's caches keep device meshes, which keep groups and their threads. A thread that frees a tensor
    while the interpreter shuts down ends the process with an abort.
    """
    for group in groups:
        dist.destroy_process_group(group)
    _clear_sharding_prop_cache()
    gc.collect()


def backend_for(device: torch.device) -> str:
    """Gloo for CPU tensors, and the device's own library for its tensors."""
    if device.type == "cpu":
        return "gloo"
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"

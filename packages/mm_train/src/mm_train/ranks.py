"""The processes of one run: how they start, agree, and fail together.

Whatever passes between ranks here is JSON in a CPU tensor; tensors of the network travel through FSDP2.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import attrs
import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import _clear_sharding_prop_cache

from mm_config.console import set_by_torchrun
from mm_config.runs import Run
from mm_config.schema import Problem, UserError
from mm_config.specs import Dtype, PrecisionSpec, TrainRuntimeSpec
from mm_models import gather_json
from mm_train.watching import Watch, naming, own_store, speaking

T = TypeVar("T")


@attrs.frozen
class Ranks:
    """This process among those of the run, and what they do together; every rank makes the same calls."""

    rank: int
    """This process's place, from 0."""
    world_size: int
    """Processes of the run, on all machines."""
    grouped: bool
    """Whether there is a process group; without one a single process trains unsharded."""
    watch: Watch | None = None
    """What finds out whom the others wait for; None for one process, and for a group of the caller's."""
    group: dist.ProcessGroup | None = None
    """The group by which they speak; None for the default one, which is the main thread's."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and speaks."""
        return self.rank == 0

    def reached(self, step: int) -> None:
        """Says, where somebody listens, how many steps are done."""
        if self.watch is not None:
            self.watch.step = step

    def naming_who_is_missing(self, run: Run | None = None) -> AbstractContextManager[None]:
        """Makes a wait for another rank that fails in a block an error that names the rank, see `naming`."""
        return nullcontext() if self.watch is None else naming(self.watch, run)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's JSON value, in the order of ranks, on every rank."""
        return [value] if self.world_size == 1 else gather_json(value, self.group)

    def share(self, value: Any) -> Any:
        """The first rank's JSON value, on every rank."""
        return self.gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.largest(int(flag)))

    def largest(self, number: int) -> int:
        """The largest of every rank's number."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.group)
        return int(numbers)

    def together(self, work: Callable[[], T]) -> T:
        """Does work on every rank; when it fails on one, it fails on all, with all problems.

        Raises:
            UserError: The problems of every rank, each once, see `merged`. The rank of an unexpected error
                raises that error itself.
        """
        if self.world_size == 1:
            return work()
        outcome: T | None = None
        failure: Exception | None = None
        try:
            outcome = work()
        except Exception as error:
            failure = error
        if not self.any(failure is not None):
            return outcome  # type: ignore[return-value]
        found = self.gather(_problems_of(failure, self.rank))
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        raise UserError(merged(found))

    def on_first(self, work: Callable[[], Any]) -> Any:
        """Does work on the first rank alone and gives its JSON result, or its error, to every rank."""
        return self.share(self.together(lambda: work() if self.is_first else None))


def timeout_of(runtime: TrainRuntimeSpec) -> timedelta:
    """How long a rank waits for the others before it fails."""
    return timedelta(seconds=runtime.timeout_seconds or 60 * runtime.timeout_minutes)


@contextmanager
def joined(
    precision: PrecisionSpec,
    device: torch.device,
    timeout: timedelta = timedelta(minutes=30),
    *,
    sharded: bool = False,
) -> Generator[Ranks]:
    """Joins the process group that torchrun prepared, or the one that the caller already joined.

    A rank that waits longer than `timeout` for the others fails.

    Raises:
        UserError: RANK or WORLD_SIZE is no number.

    A single process without torchrun has nothing to shard. In float32 it also has nothing to cast, so it
    goes without a group and without FSDP2, whose hooks cost some 30 ms a step on a CPU whatever the
    network's size; in other formats, or where it is to be `sharded`, it makes a group of its own, because
    FSDP2 holds the dtype policy and what waits in the host's memory.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), grouped=True)
        return
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    set_by_torchrun("RANK", 0)
    set_by_torchrun("WORLD_SIZE", 1, at_least=1)
    if not launched and precision.compute is Dtype.FLOAT32 and not sharded:
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
        _part()


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


def _part() -> None:
    """Leaves the process group and ends its threads.

    DTensor's caches keep the device mesh, which keeps the group and its threads. A thread that frees a tensor
    while the interpreter shuts down ends the process with an abort.
    """
    dist.destroy_process_group()
    _clear_sharding_prop_cache()
    gc.collect()


def backend_for(device: torch.device) -> str:
    """Gloo for CPU tensors, and the device's own library for its tensors."""
    if device.type == "cpu":
        return "gloo"
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"


def merged(found: Iterable[Iterable[tuple[str, str]]]) -> list[Problem]:
    """Every rank's problems, given as path and message, each once.

    Ranks may word one problem differently, with counts of their own: what an earlier rank has named by its
    path is not said again.
    """
    said: list[Problem] = []
    for problems in found:
        named = {problem.path for problem in said if problem.path}
        said += [Problem(path, message) for path, message in problems if path not in named]
    return list(dict.fromkeys(said))


def _problems_of(failure: Exception | None, rank: int) -> list[tuple[str, str]]:
    if failure is None:
        return []
    if isinstance(failure, UserError):
        return [(problem.path, problem.message) for problem in failure.problems]
    return [("", f"rank {rank} stopped: {type(failure).__name__}: {failure}")]

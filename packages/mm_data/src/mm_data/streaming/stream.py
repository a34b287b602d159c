"""Batches in a planned order, loaded by threads, resumable at any step on any number of ranks.

torchdata's nodes carry the work: one source whose whole state is a number, and one `ParallelMapper` of
threads in order. Its mapped function never raises, because what consumes a mapper that raises hangs or ends
the epoch early; what goes wrong travels to the caller as a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import torch
from torchdata.nodes import ParallelMapper

from mm_config.console import say
from mm_config.options import ACCEPT
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, Order
from mm_data.clips import load_clip
from mm_data.plan.making import make_plan
from mm_data.plan.plan import Plan
from mm_data.records import Dataset, Shape
from mm_data.streaming.ahead import Ahead
from mm_data.streaming.filling import Filled, Filler, Load
from mm_data.streaming.quarantine import Quarantine
from mm_data.streaming.slots import MIB, Room, Slot, Slots
from mm_data.video.readers import reader_of

SHOWN_PATHS = 5
MOST_WAITING = 64
"""Clips that are done and wait for one before them, each of which costs an idle thread."""
STALL_SECONDS = 600.0
"""The longest wait for one item; far longer than any clip takes to decode."""


@attrs.frozen
class Batch:
    """One rank's share of a global batch."""

    step: int
    """Optimizer step, from 0."""
    positions: tuple[int, ...]
    """Place of each item in the global batch; the same on any number of ranks."""
    indices: tuple[int, ...]
    """Place of each item's record in the dataset, after bad clips were substituted."""
    items: tuple[Any, ...]
    """What `load` returned."""
    shape: Shape
    """That of each clip."""
    size: int
    """Samples of all ranks."""


class Stream:
    """What `stream` returns: iterates over batches; a context manager that stops its threads.

    A batch that is asked for raises UserError where too many clips are bad or none arrives, and what `load`
    raised for a clip that it should have loaded.
    """

    def __init__(
        self,
        filled: Iterator[Filled],
        plan: Plan,
        world_size: int,
        start_step: int,
        end_step: int,
        identity: dict[str, Any],
        quarantine: Quarantine,
        room: Room,
    ) -> None:
        self.quarantine = quarantine
        """The bad clips met so far, by any rank that shares the file."""
        self._filled = filled
        self._plan = plan
        self._world_size = world_size
        self._step = start_step
        self._end_step = end_step
        self._identity = identity
        self._room = room
        self._num_threads = torch.get_num_threads()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        if self._step == self._end_step:
            self.close()
            raise StopIteration
        size = self._plan.size(self._step)
        filled = [self._next() for _ in range(size // self._world_size)]
        # Each of torchdata's threads sets torch's number of threads to 1 when it starts, which every thread
        # that starts later (autograd's among them) then takes over.
        torch.set_num_threads(self._num_threads)
        assert {one.slot.step for one in filled} == {self._step}
        self._step += 1
        return Batch(
            step=self._step - 1,
            positions=tuple(one.slot.position for one in filled),
            indices=tuple(one.index for one in filled),
            items=tuple(one.taken() for one in filled),
            shape=filled[0].slot.shape,
            size=size,
        )

    def _next(self) -> Filled:
        filled = next(self._filled)
        self._room.give_back(filled.slot)
        self.quarantine.add(filled.bad)
        if filled.error is not None:
            raise filled.error
        return filled

    def state(self) -> dict[str, Any]:
        """What resuming needs: JSON of less than 1 KB that is the same on every rank."""
        return {**self._identity, "step": self._step}

    def waiting(self) -> list[Any]:
        """Items of the next batch, from its first on, that have arrived already."""
        if not isinstance(self._filled, Ahead):
            return []
        arrived = [one for one in self._filled.waiting() if one.slot.step == self._step]
        return [one.item for one in arrived if one.error is None]

    def close(self) -> None:
        """Stops the threads; no further batch can be taken."""
        self._room.close()
        if isinstance(self._filled, Ahead):
            self._filled.close()
        self._filled = iter(())
        self._end_step = self._step

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def stream(
    data: DataSpec,
    dataset: Dataset,
    *,
    seed: int,
    plan: Plan | None = None,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    end_step: int,
    load: Load | None = None,
    workers: int | None = None,
    quarantine: Path | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Stream:
    """The batches of one rank for the steps `start_step` up to, not including, `end_step`.

    The place of a sample in the steps is the same on any number of ranks; rank `r` of `W` has the positions
    of a batch from `r / W` of its size on. A clip that can't be read is listed in the quarantine and its
    place is taken by the next clip of its bucket in the epoch's order that can.

    Args:
        data: Batch sizes, size and rate of clips, reader, workers, how much waits ahead, and how many bad
            clips are allowed.
        dataset: What `prepare` returned.
        seed: The run's seed.
        plan: What `make_plan` returned for them; None makes it.
        rank: Of this process.
        world_size: Processes that share each batch.
        start_step: The first step.
        end_step: The one after the last.
        load: Makes an item of what is asked for; `mm_data.load_clip` by default. Called from several threads
            where there are workers. It raises `BadClip` for a clip that can't be used; any other exception
            is raised again by the stream.
        workers: Threads that load. They work ahead: `data.prefetch` batches of this rank wait, besides one
            item in each thread. 0 loads in the caller's thread, the cheapest where loading is a look-up. None
            takes `data.workers`.
        quarantine: File that lists bad clips, one JSON object per line; clips that it lists are not tried.
        stall_seconds: The longest wait for one item; a decoder may hang in native code.

    Raises:
        UserError: The ranks don't divide a batch; the reader isn't installed; too many clips are bad, or none
            arrives (here or while iterating).
    """
    plan = make_plan(data, dataset, seed) if plan is None else plan
    for size in sorted({bucket.size for bucket in plan.buckets}):
        if size % world_size:
            message = f"{size} samples can't be shared equally by {world_size} ranks"
            raise UserError(Problem("spec.data.batch_size", message))
    if load is None:
        reader_of(data.reader, data.isolated)
        load = partial(load_clip, data=data)
    workers = data.workers if workers is None else workers
    listed = Quarantine(quarantine, dataset.records, data)
    listed.check()
    _say_changed(listed.changed)
    loading: dict[Slot, str] = {}
    prefetch = data.prefetch or 1
    most_bytes = None if data.prefetch_mib is None else data.prefetch_mib * MIB
    room = Room(start_step, prefetch, max(workers, 1), most_bytes)
    # As many clips are on their way as there are threads, and those count that wait for a slower one before.
    largest = max(bucket.size for bucket in plan.buckets) // world_size
    threads = workers + min(prefetch * largest, MOST_WAITING) if workers else 0
    mapper = ParallelMapper(
        Slots(plan, start_step, end_step, rank, world_size, room),
        Filler(plan, dataset, load, listed, loading, room),
        num_workers=threads,
        in_order=True,
        max_concurrent=threads or None,
        snapshot_frequency=1,
    )
    filled: Iterator[Filled] = iter(mapper)
    if workers:
        filled = Ahead(filled, stall_seconds, partial(_stalled, stall_seconds, loading))
    identity = _identity(data, dataset, seed, plan)
    return Stream(filled, plan, world_size, start_step, end_step, identity, listed, room)


def resume_step(
    state: dict[str, Any], data: DataSpec, dataset: Dataset, *, seed: int, plan: Plan | None = None
) -> int:
    """The step at which a stream goes on from the state of an earlier one.

    Raises:
        UserError: The data, the seed, the batch size or the buckets are others; one problem for each.
    """
    plan = make_plan(data, dataset, seed) if plan is None else plan
    names = {
        "digest": "the order's key (of the manifest's paths and captions)",
        "num_records": "the number of clips",
        "seed": "the seed",
        "batch_size": "the batch size",
        "plan": "the key of the buckets, their batch sizes and how many clips are in each",
    }
    now = _identity(data, dataset, seed, plan)
    problems = [
        Problem("", f"can't resume the data stream: {name} was {state.get(key)!r}, now is {now.get(key)!r}")
        for key, name in names.items()
        if state.get(key) != now.get(key)
    ]
    if problems:
        if state.get("digest") != dataset.order_key and state.get("num_records") == len(dataset.records):
            problems.append(Problem("", f"{ACCEPT} goes on in the order that the run began with"))
        raise UserError(problems)
    return int(state["step"])


def _say_changed(paths: Sequence[str]) -> None:
    """Says which clips that could not be read are tried again."""
    if paths:
        shown = ", ".join(paths[:SHOWN_PATHS])
        more = f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else ""
        text = f"clips that could not be read are tried again, since their files changed: {shown}{more}"
        say(str(Problem("", text)))  # Paths may hold control characters, which a problem escapes.


def _identity(data: DataSpec, dataset: Dataset, seed: int, plan: Plan) -> dict[str, Any]:
    return {
        "digest": dataset.order_key,
        "num_records": len(dataset.records),
        "seed": seed,
        "batch_size": data.batch_size,
        **_plan_key(data, dataset, plan),
    }


def _plan_key(data: DataSpec, dataset: Dataset, plan: Plan) -> dict[str, str]:
    """What the order follows from beside the dataset; nothing where all clips are one shuffled bucket."""
    ways = [data.order.value, data.shuffle_block]
    buckets = [
        [
            attrs.astuple(bucket.shape),
            bucket.size,
            str(bucket.period),
            bucket.weights,
            [(members.offset, len(members.indices), members.period) for members in bucket.members],
        ]
        for bucket in plan.buckets
    ]
    whole = [(0, len(dataset.records), len(dataset.records))]
    if ways == [Order.SHUFFLED.value, None] and len(buckets) == 1 and buckets[0][-1] == whole:
        return {}
    return {"plan": blake2b(repr((ways, buckets)).encode(), digest_size=16).hexdigest()}


def _stalled(seconds: float, loading: dict[Slot, str]) -> UserError:
    paths = ", ".join(loading.copy().values()) or "none"
    return UserError(f"no clip arrived for {seconds:g} s; being loaded: {paths}")

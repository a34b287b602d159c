"""Batches in a planned order, loaded by threads, resumable at any step on any number of ranks.

torchdata's nodes carry the work: one source whose whole state is a number, and one `ParallelMapper` of
threads in order. Its mapped function never raises, because what consumes a mapper that raises hangs or ends
the epoch early; what goes wrong travels to the caller as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import torch
from torchdata.nodes import ParallelMapper

from mm_config.console import say
from mm_config.options import ACCEPT
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.bad import Bad, BadClip, file_state
from mm_data.clips import load_clip, reader_of
from mm_data.plan.order import index_of
from mm_data.records import Asked, Dataset, ask
from mm_data.streaming.ahead import ahead
from mm_data.streaming.quarantine import Quarantine
from mm_data.streaming.slots import Plan, Slot

Load = Callable[[Asked], Any]

SHOWN_PATHS = 5
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


@attrs.frozen
class _Loaded:
    """A filled slot: the item, or the error that is no clip's fault, and the bad clips met on the way."""

    slot: Slot
    """The place."""
    index: int
    """Of the record in the dataset, after bad clips were substituted."""
    item: Any
    """What `load` returned; None where nothing could be loaded."""
    bad: tuple[Bad, ...]
    """Clips found bad on the way."""
    error: Exception | None = None
    """What `load` raised, if it was no BadClip."""


class Stream:
    """What `stream` returns: iterates over batches; a context manager that stops its threads.

    A batch that is asked for raises UserError where too many clips are bad or none arrives, and what `load`
    raised for a clip that it should have loaded.
    """

    def __init__(
        self,
        loaded: Generator[_Loaded, None, None],
        batch_size: int,
        start_step: int,
        end_step: int,
        identity: dict[str, Any],
        quarantine: Quarantine,
    ) -> None:
        self.quarantine = quarantine
        """The bad clips met so far, by any rank that shares the file."""
        self._loaded = loaded
        self._batch_size = batch_size
        self._step = start_step
        self._end_step = end_step
        self._identity = identity
        self._num_threads = torch.get_num_threads()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        if self._step == self._end_step:
            self.close()
            raise StopIteration
        loaded = [self._checked(one) for one in islice(self._loaded, self._batch_size)]
        # Each of torchdata's threads sets torch's number of threads to 1 when it starts, which every thread
        # that starts later (autograd's among them) then takes over.
        torch.set_num_threads(self._num_threads)
        assert [one.slot.step for one in loaded] == [self._step] * self._batch_size
        self._step += 1
        return Batch(
            step=self._step - 1,
            positions=tuple(one.slot.position for one in loaded),
            indices=tuple(one.index for one in loaded),
            items=tuple(one.item for one in loaded),
        )

    def _checked(self, loaded: _Loaded) -> _Loaded:
        self.quarantine.add(loaded.bad)
        if loaded.error is not None:
            raise loaded.error
        return loaded

    def state(self) -> dict[str, Any]:
        """What resuming needs: JSON of less than 1 KB that is the same on every rank."""
        return {**self._identity, "step": self._step}

    def close(self) -> None:
        """Stops the threads; no further batch can be taken."""
        self._loaded.close()
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

    Sample `n = step * batch_size + position` is the same record on any number of ranks; rank `r` of `W` has
    the positions from `r * batch_size / W` on. A clip that can't be read is listed in the quarantine and
    its place is taken by the next record in the epoch's order that can.

    Args:
        data: Batch size, size and rate of clips, reader, workers, and the share of bad clips allowed.
        dataset: What `prepare` returned.
        seed: The run's seed.
        load: Makes an item of what is asked for; `mm_data.load_clip` by default. Called from several threads
            where there are workers. It raises `BadClip` for a clip that can't be used; any other exception
            is raised again by the stream.
        workers: Threads that load. They work ahead: one batch of this rank waits, besides one item in each
            thread. 0 loads in the caller's thread, the cheapest where loading is a look-up. None takes
            `data.workers`.
        quarantine: File that lists bad clips, one JSON object per line; clips that it lists are not tried.
        stall_seconds: The longest wait for one item; a decoder may hang in native code.

    Raises:
        UserError: The ranks don't divide the batch; the reader isn't installed; too many clips are bad, or
            none arrives (here or while iterating).
    """
    if data.batch_size % world_size:
        message = f"{data.batch_size} samples can't be shared equally by {world_size} ranks"
        raise UserError(Problem("spec.data.batch_size", message))
    if load is None:
        reader_of(data.reader)
        load = partial(load_clip, data=data)
    share = data.batch_size // world_size
    workers = data.workers if workers is None else workers
    listed = Quarantine(quarantine, dataset.records, data.max_bad_share)
    listed.check()
    _say_changed(listed.changed)
    loading: dict[Slot, Path] = {}
    fill = partial(
        _fill,
        data=data,
        dataset=dataset,
        seed=seed,
        load=load,
        quarantine=listed,
        loading=loading,
    )
    plan = Plan(start_step, end_step, range(rank * share, (rank + 1) * share))
    mapper = ParallelMapper(
        plan, fill, num_workers=workers, in_order=True, max_concurrent=workers or None, snapshot_frequency=1
    )
    if workers:
        loaded = ahead(mapper, share, stall_seconds, partial(_stalled, stall_seconds, loading))
    else:
        loaded = (one for one in mapper)
    return Stream(loaded, share, start_step, end_step, _identity(data, dataset, seed), listed)


def resume_step(state: dict[str, Any], data: DataSpec, dataset: Dataset, *, seed: int) -> int:
    """The step at which a stream goes on from the state of an earlier one.

    Raises:
        UserError: The data, the seed or the batch size is another; one problem for each.
    """
    names = {
        "digest": "the order's key (of the manifest's paths and captions)",
        "num_records": "the number of clips",
        "seed": "the seed",
        "batch_size": "the batch size",
    }
    problems = [
        Problem("", f"can't resume the data stream: {names[key]} was {state.get(key)!r}, now is {now!r}")
        for key, now in _identity(data, dataset, seed).items()
        if state.get(key) != now
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


def _identity(data: DataSpec, dataset: Dataset, seed: int) -> dict[str, Any]:
    return {
        "digest": dataset.order_key,
        "num_records": len(dataset.records),
        "seed": seed,
        "batch_size": data.batch_size,
    }


def _fill(
    slot: Slot,
    *,
    data: DataSpec,
    dataset: Dataset,
    seed: int,
    load: Load,
    quarantine: Quarantine,
    loading: dict[Slot, Path],
) -> _Loaded:
    """Loads the first record that can be read, from the planned one on; never raises."""
    number = slot.step * data.batch_size + slot.position
    size = len(dataset.records)
    bad: list[Bad] = []
    index = -1
    for attempt in range(size):
        index = index_of(dataset.order_key, seed, number, size, attempt)
        if index in quarantine.clips:
            continue
        record = dataset.records[index]
        asked = ask(record, data, index, f"{seed}/{number // size}/{index}")
        loading[slot] = record.path
        state = file_state(record.path)
        try:
            return _Loaded(slot, index, load(asked), tuple(bad))
        except BadClip as problem:
            bad.append(Bad(index, str(record.path), problem.stage, problem.reason, state))
            if len(bad) > quarantine.allowed:
                break
        except Exception as error:
            return _Loaded(slot, index, None, tuple(bad), error)
        finally:
            del loading[slot]
    return _Loaded(slot, index, None, tuple(bad))


def _stalled(seconds: float, loading: dict[Slot, Path]) -> UserError:
    paths = ", ".join(str(path) for path in loading.copy().values()) or "none"
    return UserError(f"no clip arrived for {seconds:g} s; being loaded: {paths}")

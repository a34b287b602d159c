"""How much waits ahead: whole batches of their own sizes, and no more bytes than are allowed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch

from mm_config.specs import DataSpec, Tails
from mm_data import Asked, Clip, Dataset, Plan, Shape, batch_indices, stream
from mm_data.plan.counts import Counts
from mm_data.plan.plan import Bucket, Members
from mm_data.streaming.slots import Room, Slot
from tests.mm_data.streams import plain_dataset

IMAGE, CLIP = Shape(1, 512, 1024), Shape(8, 512, 1024)
"""1.5 MiB and 12 MiB of pixels."""
MIB = 2**20


def mixed(images: int, clips: int) -> tuple[Dataset, Plan]:
    """Half the records are images, batched by `images`, half of them clips."""
    dataset = plain_dataset(96)
    buckets = [
        Bucket(shape, size, (Members(range(first, first + 48), 0, shape_key, 48),), (1,), Fraction(48))
        for shape, size, first, shape_key in ((IMAGE, images, 0, "images"), (CLIP, clips, 48, "clips"))
    ]
    counts = Counts((), (), (96,), Tails.CARRY)
    return dataset, Plan(buckets, counts, "key", 5, in_order=False, block=None)


class Gauge:
    """Loads clips that have no pixels, and keeps account of those that are on their way."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.loaded: list[Shape] = []
        self.taken = 0

    def load(self, asked: Asked) -> Shape:
        with self.changed:
            self.loaded.append(asked.shape)
            self.changed.notify_all()
        return asked.shape

    def settled(self, count: int) -> None:
        """Waits for so many loads; then that no more come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.loaded) >= count, timeout=60)
            self.changed.wait_for(lambda: len(self.loaded) > count, timeout=0.1)
            assert len(self.loaded) == count


def sizes_of(plan: Plan, steps: int) -> list[int]:
    return [plan.size(step) for step in range(steps)]


@pytest.mark.parametrize("prefetch", [None, 1, 3])
def test_whole_batches_wait_whatever_their_sizes(
    data_spec: Callable[..., DataSpec], prefetch: int | None
) -> None:
    """Beside them are as many on their way as there are workers."""
    dataset, plan = mixed(images=8, clips=2)
    gauge, sizes = Gauge(), sizes_of(plan, 12)
    assert set(sizes) == {8, 2}
    data = data_spec(prefetch=prefetch)
    with stream(data, dataset, seed=5, plan=plan, end_step=12, load=gauge.load, workers=2) as batches:
        for step in range(5):
            gauge.settled(sum(sizes[: step + (prefetch or 1)]) + 2)
            batch = next(batches)
            assert len(batch.items) == batch.size == sizes[step]
            assert set(batch.items) == {batch.shape}


def test_the_first_place_that_waits_is_loaded_next() -> None:
    """A batch would else wait for clips of batches after it."""
    room = Room(start_step=0, batches=4, workers=1, most_bytes=None)
    loaded: list[tuple[int, int]] = []

    def load(slot: Slot) -> None:
        with room.turn(slot):
            loaded.append((slot.step, slot.position))

    places = [(3, 1), (1, 2), (2, 0), (1, 0), (3, 0), (1, 1)]
    threads = [threading.Thread(target=load, args=(Slot(*place, CLIP),)) for place in places]
    with room.turn(Slot(0, 0, CLIP)):
        for thread in threads:
            thread.start()
        while len(room.waiting) < len(places):
            assert not loaded
    for thread in threads:
        thread.join()
    assert loaded == sorted(places)


def test_no_more_bytes_wait_than_are_allowed(data_spec: Callable[..., DataSpec]) -> None:
    """The batch that is taken does not count: it is taken clip by clip as they come."""
    dataset, plan = mixed(images=8, clips=8)
    gauge = Gauge()
    data = data_spec(prefetch=4, prefetch_mib=30)
    with stream(data, dataset, seed=5, plan=plan, end_step=8, load=gauge.load, workers=4) as batches:
        taken = 0
        for batch in batches:
            taken += len(batch.items)
            if batch.step == 7:
                break
            waiting, expected = 0.0, taken
            for shape in (plan.shape(step) for step in range(batch.step + 1, 8) for _ in range(8)):
                waiting += 1.5 if shape == IMAGE else 12
                if waiting > 30:
                    break
                expected += 1
            gauge.settled(min(expected, taken + 4 * 8 + 4))


def test_a_clip_larger_than_the_bound_comes_by_itself(data_spec: Callable[..., DataSpec]) -> None:
    dataset, plan = mixed(images=8, clips=8)
    gauge = Gauge()
    with stream(
        data_spec(prefetch_mib=1), dataset, seed=5, plan=plan, end_step=4, load=gauge.load, workers=3
    ) as batches:
        gauge.settled(1)
        assert [len(batch.items) for batch in batches] == [8] * 4
    assert len(gauge.loaded) == 32


def test_threads_that_wait_for_memory_end_with_the_stream(data_spec: Callable[..., DataSpec]) -> None:
    before = set(threading.enumerate())
    dataset, plan = mixed(images=8, clips=8)
    gauge = Gauge()
    with stream(
        data_spec(prefetch_mib=1), dataset, seed=5, plan=plan, end_step=4, load=gauge.load, workers=3
    ):
        gauge.settled(1)
    assert set(threading.enumerate()) == before


def test_items_that_have_arrived_can_be_looked_at(data_spec: Callable[..., DataSpec]) -> None:
    dataset, plan = mixed(images=8, clips=2)
    gauge, sizes = Gauge(), sizes_of(plan, 3)
    with stream(data_spec(), dataset, seed=5, plan=plan, end_step=3, load=gauge.load, workers=2) as batches:
        for step in range(3):
            gauge.settled(min(sum(sizes[: step + 1]) + 2, sum(sizes)))
            assert batches.waiting() == [plan.shape(step)] * sizes[step]
            assert list(next(batches).items) == [plan.shape(step)] * sizes[step]
        assert batches.waiting() == []


def test_a_slow_clip_holds_up_no_other_of_its_batch(data_spec: Callable[..., DataSpec]) -> None:
    """The first of a batch is done only after the three others, by two threads at a time."""
    dataset, others, at_once = plain_dataset(40), threading.Semaphore(0), []
    busy = threading.BoundedSemaphore(2)
    first = batch_indices("digest", 5, 0, 1, 40)

    def load(asked: Asked) -> int:
        assert busy.acquire(blocking=False), "more threads load than were asked for"
        if asked.index in first:
            at_once.extend(others.acquire(timeout=30) for _ in range(3))
        time.sleep(0.01)
        others.release()
        busy.release()
        return asked.index

    with stream(data_spec(), dataset, seed=5, end_step=10, load=load, workers=2) as batches:
        assert sorted(index for batch in batches for index in batch.items) == list(range(40))
    assert at_once == [True] * 3


def test_threads_keep_no_clip_that_was_taken(data_spec: Callable[..., DataSpec]) -> None:
    dataset, plan = mixed(images=8, clips=8)
    loaded: list[tuple[weakref.ref[Clip], float]] = []

    def load(asked: Asked) -> Clip:
        clip = Clip(torch.zeros(1), "")
        loaded.append((weakref.ref(clip), 1.5 if asked.shape == IMAGE else 12))
        return clip

    data = data_spec(prefetch=2, prefetch_mib=30)
    with stream(data, dataset, seed=5, plan=plan, end_step=8, load=load, workers=8) as batches:
        for batch in batches:
            time.sleep(0.05)
            at_hand = 8 * (1.5 if batch.shape == IMAGE else 12)
            assert sum(size for clip, size in loaded if clip() is not None) <= at_hand + 30


@pytest.mark.parametrize("workers", [0, 2])
def test_what_would_end_a_thread_ends_the_stream(data_spec: Callable[..., DataSpec], workers: int) -> None:
    dataset, plan = mixed(images=8, clips=8)

    def load(_: Asked) -> Clip:
        raise SystemExit("panic")

    asked: dict[str, Any] = {"seed": 5, "plan": plan, "end_step": 8, "load": load, "workers": workers}
    with (
        pytest.raises(RuntimeError, match="SystemExit: panic"),
        stream(data_spec(), dataset, stall_seconds=5, **asked) as batches,
    ):
        next(batches)

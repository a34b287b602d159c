"""Batches: planned order on any number of ranks, exact resume, and no more loaded ahead than is asked for."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import attrs
import numpy as np
import pytest
import torch

from mm_config.schema.errors import UserError
from mm_data import Asked, batch_indices, resume_step, stream
from tests.mm_data.streams import caption_of, plain_dataset, run


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_planned_batches(data_spec, world_size, workers):
    data, dataset = data_spec(), plain_dataset(23)
    planned = [batch_indices("digest", 5, step, 4, 23) for step in range(15)]
    assert run(data, dataset, world_size=world_size, end_step=15, workers=workers) == planned


def test_each_epoch_is_seen_exactly_once_over_kills_and_other_rank_counts(data_spec):
    """Random kills; every resume may have another number of ranks and of workers."""
    rng = np.random.default_rng(0)
    data, dataset = data_spec(), plain_dataset(26)
    for _ in range(8):
        seen: list[int] = []
        step = 0
        while step < 13:
            end = min(step + int(rng.integers(1, 6)), 13)
            options = {"world_size": int(rng.choice([1, 2, 4])), "workers": int(rng.choice([0, 2]))}
            seen += [
                n for batch in run(data, dataset, start_step=step, end_step=end, **options) for n in batch
            ]
            step = end
        assert Counter(seen[:26]) == Counter(seen[26:]) == Counter(range(26))


def test_a_state_taken_in_the_middle_resumes_there(data_spec):
    data, dataset = data_spec(), plain_dataset(23)
    with stream(data, dataset, seed=5, end_step=20, load=caption_of) as batches:
        whole = [batch.items for batch in batches]
    with stream(data, dataset, seed=5, end_step=20, load=caption_of) as batches:
        first = [next(batches).items for _ in range(7)]
        state = json.loads(json.dumps(batches.state()))
    start_step = resume_step(state, data, dataset, seed=5)
    with stream(data, dataset, seed=5, start_step=start_step, end_step=20, load=caption_of) as batches:
        assert first + [batch.items for batch in batches] == whole


def test_the_state_is_small_and_the_same_on_every_rank(data_spec):
    data, dataset = data_spec(), plain_dataset(1000)
    states = []
    for rank in range(2):
        with stream(
            data, dataset, seed=2**64 - 1, rank=rank, world_size=2, end_step=10**6, load=caption_of
        ) as batches:
            for _ in range(3):
                next(batches)
            states.append(json.dumps(batches.state()))
    assert states[0] == states[1] and len(states[0]) < 1024


def test_resuming_with_other_data_says_all_that_changed(data_spec):
    data, dataset = data_spec(), plain_dataset(23)
    with stream(data, dataset, seed=5, end_step=20, load=caption_of) as batches:
        state = batches.state()
    with pytest.raises(UserError) as error:
        resume_step(state, data_spec(batch_size=8), attrs.evolve(dataset, order_key="other"), seed=5)
    assert str(error.value).splitlines() == [
        "can't resume the data stream: the order's key (of the manifest's paths and captions) was 'digest', "
        "now is 'other'",
        "can't resume the data stream: the batch size was 4, now is 8",
        "--accept-content goes on in the order that the run began with",
    ]


def test_ranks_that_do_not_divide_the_batch_are_refused(data_spec):
    with pytest.raises(UserError, match=r"spec\.data\.batch_size: 4 samples .* 3 ranks"):
        stream(data_spec(), plain_dataset(5), seed=0, world_size=3, end_step=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_real_clips_arrive_decoded(coded_dataset, coded, data_spec, workers):
    with stream(data_spec(), coded_dataset, seed=0, end_step=5, workers=workers) as batches:
        items = [
            (index, clip) for batch in batches for index, clip in zip(batch.indices, batch.items, strict=True)
        ]
    assert Counter(index for index, _ in items) == Counter([*range(10)] * 2)
    for index, clip in items:
        assert clip.caption == f"clip {index}"
        assert [coded.number(frame.numpy()) for frame in clip.frames] == list(range(index, index + 9))


def test_no_more_is_loaded_ahead_than_a_batch_and_the_workers_hold(data_spec):
    # A batch that waits, and two in the workers.
    loads, taken, most = threading.Condition(), 0, 4 + 2
    ahead: list[int] = []

    def load(asked: Asked) -> str:
        with loads:
            ahead.append(len(ahead) + 1 - taken)
            loads.notify()
        return asked.record.caption

    with stream(data_spec(), plain_dataset(100), seed=0, end_step=25, load=load) as batches:
        for _ in range(25):
            taken += 4
            next(batches)
            with loads:
                while len(ahead) < min(taken + most, 100):
                    assert loads.wait(timeout=60)
    assert max(ahead) == most


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_end_with_the_stream_and_torch_keeps_its_own(data_spec, workers, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    before = set(threading.enumerate())
    torch.set_num_threads(2)
    with stream(
        data_spec(), plain_dataset(50), seed=0, end_step=9, load=caption_of, workers=workers
    ) as batches:
        for _ in range(3):
            next(batches)
            assert torch.get_num_threads() == 2
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == 2
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(StopIteration):
        next(batches)

"""Batches: planned order on any number of ranks, exact resume, bad clips that never stop or skew a run."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from mm_config.schema.errors import UserError
from mm_data import BadClip, Dataset, Record, batch_indices, resume_step, stream


def plain_dataset(num_records: int) -> Dataset:
    """Records whose files are never opened: the tests' own loaders look at captions."""
    records = tuple(Record(Path(f"/nowhere/{n}.mp4"), str(n)) for n in range(num_records))
    return Dataset(Path("/nowhere"), records, "digest")


def caption_of(record: Record) -> str:
    return record.caption


def run(data, dataset, *, world_size=1, start_step=0, end_step, **options) -> list[tuple[int, ...]]:
    """The global batches, put together from every rank's positions."""
    batches = [[-1] * data.batch_size for _ in range(start_step, end_step)]
    for rank in range(world_size):
        with stream(
            data,
            dataset,
            seed=5,
            rank=rank,
            world_size=world_size,
            start_step=start_step,
            end_step=end_step,
            **{"load": caption_of, **options},
        ) as batches_of_rank:
            for batch in batches_of_rank:
                for position, index in zip(batch.positions, batch.indices, strict=True):
                    batches[batch.step - start_step][position] = index
    return [tuple(batch) for batch in batches]


@pytest.fixture(scope="module")
def coded_dataset(tmp_path_factory, coded) -> Dataset:
    """Ten real clips; clip `n` starts with the number `n`."""
    folder = tmp_path_factory.mktemp("coded")
    whole = coded.write(folder / "whole.mp4", options={"x264-params": "keyint=1"})
    records = []
    for number in range(10):
        path = coded.cut(whole, folder / f"{number}.mp4", keyframe=number, first=number)
        records.append(Record(path, f"clip {number}"))
    return Dataset(folder, tuple(records), "digest")


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
        resume_step(state, data_spec(batch_size=8), attrs.evolve(dataset, digest="other"), seed=5)
    assert str(error.value).splitlines() == [
        "can't resume the data stream: the manifest's digest was 'digest', now is 'other'",
        "can't resume the data stream: the batch size was 4, now is 8",
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


@pytest.fixture
def damaged(coded_dataset, tmp_path) -> Dataset:
    """The ten clips, of which 2 is text, 5 is empty and 7 is missing."""
    records = []
    for number, record in enumerate(coded_dataset.records):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes({2: b"no video", 5: b""}.get(number, record.path.read_bytes()))
        records.append(Record(path, record.caption))
    records[7].path.unlink()
    return Dataset(tmp_path, tuple(records), "digest")


def test_bad_clips_are_listed_once_and_replaced_by_the_next_in_order(damaged, data_spec, tmp_path):
    quarantine = tmp_path / "quarantine.jsonl"
    with stream(data_spec(), damaged, seed=0, end_step=10, quarantine=quarantine) as batches:
        indices = [index for batch in batches for index in batch.indices]
        assert sum(batches.quarantine.reasons().values()) == 3
        assert batches.quarantine.reasons()["open: no such file"] == 1
    listed = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert sorted(entry["index"] for entry in listed) == [2, 5, 7]
    assert all(entry["stage"] and entry["reason"] for entry in listed)
    for epoch in range(4):
        planned = [n for step in range(10) for n in batch_indices("digest", 0, step, 4, 10)]
        planned = planned[10 * epoch : 10 * epoch + 10]
        for place, index in enumerate(indices[10 * epoch : 10 * epoch + 10]):
            readable = [n for n in planned[place:] + planned[:place] if n not in (2, 5, 7)]
            assert index == readable[0]


def test_substitutes_are_the_same_on_any_number_of_ranks(damaged, data_spec, tmp_path):
    runs = [
        run(data_spec(), damaged, world_size=world_size, end_step=5, load=None, workers=workers)
        for world_size, workers in ((1, 2), (2, 1), (4, 0))
    ]
    assert runs[0] == runs[1] == runs[2]


def test_ranks_and_later_runs_share_one_quarantine(damaged, data_spec, tmp_path):
    quarantine = tmp_path / "quarantine.jsonl"
    options = {"load": None, "quarantine": quarantine, "end_step": 5}
    ranks = [
        stream(data_spec(), damaged, seed=5, rank=rank, world_size=2, end_step=20, quarantine=quarantine)
        for rank in range(2)
    ]
    with ranks[0], ranks[1]:
        assert len(list(zip(*ranks, strict=True))) == 20
    assert len(quarantine.read_text().splitlines()) == 3
    first = run(data_spec(), damaged, world_size=2, **options)
    assert run(data_spec(), damaged, **options) == first
    assert len(quarantine.read_text().splitlines()) == 3


def test_a_line_that_a_killed_process_left_unfinished_is_listed_again(damaged, data_spec, tmp_path):
    quarantine = tmp_path / "quarantine.jsonl"
    options = {"load": None, "quarantine": quarantine, "end_step": 5}
    first = run(data_spec(), damaged, **options)
    whole = quarantine.read_text()
    quarantine.write_text(whole[:-20])
    assert run(data_spec(), damaged, **options) == first
    *complete, torn, again = quarantine.read_text().splitlines()
    assert complete == whole.splitlines()[:2]
    assert whole.splitlines()[2] == again and again.startswith(torn)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_that_can_not_be_read_at_all_is_an_error(data_spec, tmp_path, workers):
    with (
        stream(data_spec(), plain_dataset(3), seed=0, end_step=2, workers=workers) as batches,
        pytest.raises(UserError, match=r"all of 3 clips can't be read.*3 x open: no such file"),
    ):
        next(batches)


def test_a_file_that_is_listed_twice_counts_twice(data_spec):
    record = Record(Path("/nowhere/a.mp4"), "")
    with (
        stream(data_spec(), Dataset(Path("/nowhere"), (record, record), "d"), seed=0, end_step=2) as batches,
        pytest.raises(UserError, match=r"all of 2 clips can't be read"),
    ):
        next(batches)


def test_more_bad_clips_than_allowed_stop_the_run(data_spec, tmp_path):
    def load(record: Record) -> str:
        if int(record.caption) < 13:
            raise BadClip("decode", "damaged")
        return record.caption

    dataset, quarantine = plain_dataset(120), tmp_path / "quarantine.jsonl"
    run(data_spec(max_bad_share=13 / 120), dataset, end_step=60, load=load)
    message = (
        r"spec\.data\.max_bad_share: 13 of 120 clips can't be read, 12 are allowed: 13 x decode: damaged"
    )
    with pytest.raises(UserError, match=message):
        run(data_spec(max_bad_share=0.1), dataset, end_step=60, load=load, quarantine=quarantine)
    with pytest.raises(UserError, match=message):
        run(data_spec(max_bad_share=0.1), dataset, end_step=60, load=load, quarantine=quarantine)


def test_a_share_of_zero_allows_no_bad_clip(damaged, data_spec):
    with pytest.raises(UserError, match="0 are allowed"):
        run(data_spec(max_bad_share=0.0), damaged, end_step=5, load=None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_of_the_loader_is_raised_and_not_quarantined(data_spec, workers):
    def load(record: Record) -> str:
        raise KeyError(record.caption)

    with stream(data_spec(), plain_dataset(9), seed=0, end_step=2, load=load, workers=workers) as batches:
        with pytest.raises(KeyError):
            next(batches)
        assert not batches.quarantine.clips


def test_a_loader_that_hangs_is_an_error_that_names_the_clip(data_spec, capfd):
    release = threading.Event()

    def load(record: Record) -> str:
        release.wait()
        return record.caption

    data = data_spec(workers=1)
    first = batch_indices("digest", 0, 0, 4, 9)[0]
    with (
        stream(data, plain_dataset(9), seed=0, end_step=2, load=load, stall_seconds=0.5) as batches,
        pytest.raises(UserError, match=f"no clip arrived for 0.5 s; being loaded: /nowhere/{first}.mp4"),
    ):
        next(batches)
    release.set()
    assert "in load" in capfd.readouterr().err


def test_no_more_is_loaded_ahead_than_a_batch_and_the_workers_hold(data_spec):
    # A batch that waits, an item in the hand of the thread between, two in the workers.
    loads, taken, most = threading.Condition(), 0, 4 + 1 + 2
    ahead: list[int] = []

    def load(record: Record) -> str:
        with loads:
            ahead.append(len(ahead) + 1 - taken)
            loads.notify()
        return record.caption

    with stream(data_spec(), plain_dataset(100), seed=0, end_step=25, load=load) as batches:
        for _ in range(25):
            taken += 4
            next(batches)
            with loads:
                while len(ahead) < min(taken + most, 100):
                    assert loads.wait(timeout=60)
    assert max(ahead) == most


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_end_with_the_stream_and_torch_keeps_its_own(data_spec, workers):
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

"""Clips that can't be read never stop or skew a run, until there are too many of them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from mm_config.schema.errors import UserError
from mm_data import Asked, BadClip, Dataset, Quarantine, Record, batch_indices, stream
from tests.mm_data.streams import plain_dataset, run


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


def test_mended_clips_are_tried_again_and_that_is_said(damaged, coded_dataset, data_spec, tmp_path, capsys):
    quarantine = tmp_path / "quarantine.jsonl"
    options = {"load": None, "quarantine": quarantine, "end_step": 5}
    run(data_spec(), damaged, **options)
    capsys.readouterr()
    for number in (2, 7):
        damaged.records[number].path.write_bytes(coded_dataset.records[number].path.read_bytes())
    mended = run(data_spec(), damaged, **options)
    planned = [n for step in range(5) for n in batch_indices("digest", 5, step, 4, 10)]
    for epoch in range(2):
        order = planned[10 * epoch : 10 * epoch + 10]
        got = [n for batch in mended for n in batch][10 * epoch : 10 * epoch + 10]
        assert all(index == n for index, n in zip(got, order, strict=True) if n != 5)
    said = capsys.readouterr().out
    assert "tried again, since their files changed: " in said and "2.mp4" in said and "7.mp4" in said
    assert "5.mp4" not in said
    assert [json.loads(line)["index"] for line in quarantine.read_text().splitlines()].count(5) == 1


def test_a_clip_that_was_replaced_by_another_bad_one_is_listed_again(damaged, data_spec, tmp_path):
    quarantine = tmp_path / "quarantine.jsonl"
    options = {"load": None, "quarantine": quarantine, "end_step": 5}
    first = run(data_spec(), damaged, **options)
    path = damaged.records[2].path
    times = path.stat()
    path.write_bytes(b"no movie")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(2):
        assert run(data_spec(), damaged, **options) == first
        listed = [json.loads(line)["index"] for line in quarantine.read_text().splitlines()]
        assert sorted(listed) == [2, 2, 5, 7]


def test_a_list_from_before_files_were_remembered_is_tried_again(damaged, data_spec, tmp_path):
    quarantine = tmp_path / "quarantine.jsonl"
    line = {"index": 2, "path": str(damaged.records[2].path), "stage": "decode", "reason": "old"}
    quarantine.write_text(json.dumps(line) + "\n" + json.dumps({**line, "index": 99}) + "\n[1]\n{}\n")
    assert not Quarantine(quarantine, damaged.records, data_spec()).clips
    run(data_spec(), damaged, load=None, quarantine=quarantine, end_step=5)
    assert sorted(Quarantine(quarantine, damaged.records, data_spec()).clips) == [2, 5, 7]


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
    def load(asked: Asked) -> str:
        if int(asked.record.caption) < 13:
            raise BadClip("decode", "damaged")
        return asked.record.caption

    dataset, quarantine = plain_dataset(120), tmp_path / "quarantine.jsonl"
    run(data_spec(max_bad_share=13 / 120), dataset, end_step=60, load=load)
    message = (
        r"spec\.data\.max_bad_share: 13 of 120 clips can't be read, 12 are allowed: 13 x decode: damaged"
    )
    with pytest.raises(UserError, match=message):
        run(data_spec(max_bad_share=0.1), dataset, end_step=60, load=load, quarantine=quarantine)
    with pytest.raises(UserError, match=message):
        run(data_spec(max_bad_share=0.1), dataset, end_step=60, load=load, quarantine=quarantine)


def test_what_was_bad_is_told_with_its_reasons(damaged, data_spec, tmp_path):
    """Also what another rank has found, which has listed it in the same file."""
    quarantine = tmp_path / "quarantine.jsonl"
    run(data_spec(), damaged, load=None, quarantine=quarantine, end_step=5)
    told = Quarantine(quarantine, damaged.records, data_spec()).told()
    assert told.startswith("3 of 10 clips could not be read: 1 x ")
    assert "1 x open: no such file" in told and "1 x open: the file is empty" in told
    assert told.endswith(f"; all are listed in {quarantine}")
    assert Quarantine(tmp_path / "none.jsonl", damaged.records, data_spec()).told() == ""


def test_a_share_of_zero_allows_no_bad_clip(damaged, data_spec):
    with pytest.raises(UserError, match="0 are allowed"):
        run(data_spec(max_bad_share=0.0), damaged, end_step=5, load=None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_of_the_loader_is_raised_and_not_quarantined(data_spec, workers):
    def load(asked: Asked) -> str:
        raise KeyError(asked.record.caption)

    with stream(data_spec(), plain_dataset(9), seed=0, end_step=2, load=load, workers=workers) as batches:
        with pytest.raises(KeyError):
            next(batches)
        assert not batches.quarantine.clips


def test_a_loader_that_hangs_is_an_error_that_names_the_clip(data_spec, capfd):
    release = threading.Event()

    def load(asked: Asked) -> str:
        release.wait()
        return asked.record.caption

    data = data_spec(workers=1)
    first = batch_indices("digest", 0, 0, 4, 9)[0]
    with (
        stream(data, plain_dataset(9), seed=0, end_step=2, load=load, stall_seconds=0.5) as batches,
        pytest.raises(UserError, match=f"no clip arrived for 0.5 s; being loaded: /nowhere/{first}.mp4"),
    ):
        next(batches)
    release.set()
    assert "in load" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "1 TiB"])
def test_a_list_that_is_no_sensible_file_is_a_line(damaged, data_spec, tmp_path, kind):
    path = tmp_path / "quarantine.jsonl"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    why = "it has more than" if kind == "1 TiB" else f"it is {kind}, no file"
    with pytest.raises(UserError, match=f"quarantine.jsonl: bad clips can't be read: {why}"):
        stream(data_spec(), damaged, seed=0, end_step=1, quarantine=path)


def test_lines_of_others_in_the_list_count_for_nothing(damaged, data_spec, tmp_path):
    path, line = tmp_path / "quarantine.jsonl", {"path": "", "stage": "", "reason": ""}
    strange = [json.dumps({**line, "index": index}) for index in ("2", [2], None, 2.5, True)]
    path.write_bytes("\n".join([*strange, "[" * 100_000]).encode() + b"\n\xff\n")
    assert not Quarantine(path, damaged.records, data_spec()).clips

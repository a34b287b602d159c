"""How many clips may be bad: a share of them, a count, so many in a row, and never a whole bucket."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

from mm_config.schema.errors import UserError
from mm_config.specs import Tails
from mm_data import Asked, Bad, BadClip, Dataset, Plan, Quarantine, Record, Shape, batch_indices, stream
from mm_data.plan.counts import Counts
from mm_data.plan.plan import Bucket, Members
from tests.mm_data.streams import plain_dataset, run


def unreadable(below: int):
    """A loader that can't read the clips with the first numbers."""

    def load(asked: Asked) -> str:
        if asked.index < below:
            raise BadClip("decode", "damaged")
        return asked.record.caption

    return load


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_a_count_limits_bad_clips_whatever_their_share(data_spec, share):
    dataset = plain_dataset(120)
    data = data_spec(max_bad_share=share, max_bad_clips=3)
    run(data, dataset, end_step=60, load=unreadable(3))
    with pytest.raises(UserError, match=r"spec\.data\.max_bad_clips: 4 of 120 .* 3 are allowed: 4 x decode"):
        run(data, dataset, end_step=60, load=unreadable(4))
    with pytest.raises(UserError, match=r"spec\.data\.max_bad_clips: 1 of 120 .* 0 are allowed"):
        run(data_spec(max_bad_clips=0), dataset, end_step=60, load=unreadable(1))


def test_32_bad_clips_in_a_row_stop_the_run_however_many_are_allowed(data_spec):
    """With a share of all but one, 31 in a row are borne; the 32nd says that something else is wrong."""
    data, order = data_spec(max_bad_share=1.0), batch_indices("digest", 5, 0, 40, 40)
    for bad, stops in ((order[:31], False), (order[:32], True)):
        tried: list[int] = []

        def load(asked: Asked, bad=bad, tried=tried) -> str:
            tried.append(asked.index)
            if asked.index in bad:
                raise BadClip("open", "no such file")
            return asked.record.caption

        with stream(data, plain_dataset(40), seed=5, end_step=1, load=load, workers=0) as batches:
            if stops:
                with pytest.raises(UserError, match=rf"{order[31]}\.mp4: open: .* 31 in a row could not"):
                    next(batches)
            else:
                assert next(batches).indices == (order[31], order[31], order[31], order[31])
        assert tried[:32] == list(order[:32])


def test_a_bucket_of_which_no_clip_can_be_read_is_an_error_that_names_it(data_spec):
    small, large = Shape(1, 64, 64), Shape(9, 64, 128)
    buckets = [
        Bucket(shape, 4, (Members(range(first, last), 0, "key", last - first),), (1,), Fraction(last - first))
        for shape, first, last in ((small, 0, 4), (large, 4, 400))
    ]
    plan = Plan(buckets, Counts((), (), (400,), Tails.CARRY), "key", 5, in_order=False, block=None)
    with (
        stream(
            data_spec(), plain_dataset(400), seed=5, plan=plan, end_step=100, load=unreadable(4)
        ) as batches,
        pytest.raises(UserError, match=r"spec\.data: none of the 4 clips of 1x64x64 can be read"),
    ):
        for batch in batches:
            assert batch.shape == large


def test_a_clip_over_the_network_is_listed_by_its_address(data_spec, tmp_path, monkeypatch):
    """Whatever happens to the folder that the process runs in."""
    monkeypatch.chdir(tmp_path)
    records = tuple(Record(Path(), str(n), url=f"s3://bucket/{n}.mp4") for n in range(20))
    dataset, listed = Dataset(Path(), records, "digest"), tmp_path / "quarantine.jsonl"
    options = {"end_step": 10, "load": unreadable(2), "quarantine": listed}
    run(data_spec(), dataset, **options)
    (tmp_path / "other").touch()
    run(data_spec(), dataset, **options)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert sorted((line["path"], line["file"]) for line in lines) == [
        ("s3://bucket/0.mp4", ""),
        ("s3://bucket/1.mp4", ""),
    ]


def test_a_long_list_is_read_once(data_spec, tmp_path):
    """200 clips found one by one after 5,000: to read all each time would be a million looks at files."""
    dataset = plain_dataset(20_000)
    listed = Quarantine(tmp_path / "quarantine.jsonl", dataset.records, data_spec(max_bad_share=0.5))
    paths = [str(record.path) for record in dataset.records]
    listed.add(Bad(n, paths[n], "open", "no such file") for n in range(5_000))
    started = time.process_time()
    for n in range(5_000, 5_200):
        listed.add([Bad(n, paths[n], "open", "no such file")])
    assert time.process_time() - started < 3
    again = Quarantine(listed.path, dataset.records, data_spec(max_bad_share=0.5))
    assert again.clips == listed.clips and len(again.clips) == 5_200

"""Real clips in buckets: measured when a manifest is planned, or before by an index."""

from __future__ import annotations

import json

import attrs
import pytest

from mm_config.schema import UserError
from mm_config.specs import Tails
from mm_data import Dataset, check_files, make_plan, prepare
from mm_data.index import journal
from mm_data.index.table import IndexedRecords
from mm_data.plan import missing, sorting
from mm_data.records import Shape
from tests.mm_data.plans import bucket, measured, spec
from tests.mm_data.sources import index_of, listed

BUCKETS = (bucket(9, 64, 128), bucket(25, 64, 128))
NAMES = ("a.mp4", "b.mp4", "c.mp4", "d.mp4")


@pytest.fixture
def clips(tmp_path, coded):
    """Clips of 24 and 12 frames at 24 frames/s, a damaged one, and another of 12."""
    coded.write(tmp_path / "a.mp4", range(24))
    coded.write(tmp_path / "b.mp4", range(12))
    (tmp_path / "c.mp4").write_bytes(b"no clip at all")
    coded.write(tmp_path / "d.mp4", range(12))
    rows = [json.dumps({"path": name, "caption": name}) for name in NAMES]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    return tmp_path


def by_index(plan):
    return {int(n): one.shape for one in plan.buckets for members in one.members for n in members.indices}


def test_a_manifest_is_measured_once_and_what_can_not_be_read_is_told(clips, tmp_path, monkeypatch):
    data = spec(buckets=BUCKETS, fps=24.0, max_bad_share=0.25, batch_size=1)
    dataset = prepare(attrs.evolve(data.dataset, path=str(clips)), cache_dir=tmp_path / "cache")
    plan = make_plan(data, dataset, 0, store=tmp_path / "store")
    expected = {0: Shape(25, 64, 128), 1: Shape(9, 64, 128), 3: Shape(9, 64, 128)}
    assert by_index(plan) == expected
    (out,) = plan.counts.left_out
    assert (out.count, out.first) == (1, ("c.mp4",))
    assert out.reason.startswith("can't be read: ")
    monkeypatch.setattr(journal, "measure", None)
    assert by_index(make_plan(data, dataset, 0, store=tmp_path / "store")) == expected
    with pytest.raises(UserError, match=r"1 of 4 clips can't be measured, 0 may be: 1 x .*c\.mp4"):
        make_plan(attrs.evolve(data, max_bad_share=0.24), dataset, 0, store=tmp_path / "store")


def test_an_index_is_sorted_as_its_clips_are(clips, tmp_path, monkeypatch):
    index_of(clips, [listed(clips, name) for name in ("a.mp4", "b.mp4", "d.mp4")], tmp_path / "index")
    records = IndexedRecords(tmp_path / "index", root=clips)
    dataset = Dataset(clips, records, records.head.order_key)
    data = spec(buckets=BUCKETS, fps=24.0, batch_size=1)
    expected = {0: Shape(25, 64, 128), 1: Shape(9, 64, 128), 2: Shape(9, 64, 128)}
    assert by_index(make_plan(data, dataset, 0)) == expected
    assert not (tmp_path / "index" / "plans").exists()
    monkeypatch.setattr(sorting, "KEPT_FROM", 1)
    for _ in range(2):
        assert by_index(make_plan(data, dataset, 0)) == expected
    (kept,) = (tmp_path / "index" / "plans").iterdir()
    (kept / "sorted.json").write_text("{")
    with pytest.raises(UserError, match=r"is damaged: .*; remove the folder to sort the clips again"):
        make_plan(data, dataset, 0)


def test_an_index_without_buckets_leaves_out_what_is_too_short(clips, tmp_path):
    index_of(clips, [listed(clips, name) for name in ("a.mp4", "b.mp4")], tmp_path / "index")
    records = IndexedRecords(tmp_path / "index", root=clips)
    plan = make_plan(spec(fps=24.0, num_frames=17), Dataset(clips, records, "key"), 0)
    told = "left out: 1 of 2 clips, shorter than 17 frames at 24 frames/s: b.mp4"
    assert list(plan.counts.lines()) == [told]


def test_files_of_an_index_are_looked_for_by_their_place(clips, tmp_path):
    index_of(clips, [listed(clips, name) for name in ("a.mp4", "b.mp4")], tmp_path / "index")
    records = IndexedRecords(tmp_path / "index", root=clips)
    dataset = Dataset(clips, records, "key")
    check_files(spec(), dataset)
    (clips / "b.mp4").unlink()
    assert missing.missing_files(dataset) == missing.Missing(2, 1, ("b.mp4",))


@pytest.mark.parametrize(
    ("clips", "size", "tails", "told"),
    [
        (1, 4, Tails.CARRY, "1 clip, 0.25 batches of 4 in an epoch; 1 begins the next"),
        (4, 4, Tails.CARRY, "4 clips, 1 batch of 4 in an epoch"),
        (5, 4, Tails.CARRY, "5 clips, 1.25 batches of 4 in an epoch; 1 begins the next"),
        (6, 4, Tails.CARRY, "6 clips, 1.5 batches of 4 in an epoch; 2 begin the next"),
        (7, 4, Tails.PAD, "7 clips, 2 batches of 4 in an epoch; 1 is seen twice to fill the last batch"),
        (5, 4, Tails.DROP, "5 clips, 1 batch of 4 in an epoch; 1 is left out of each"),
    ],
)
def test_numbers_are_told_in_grammar(clips, size, tails, told):
    data = spec(batch_size=size, tails=tails, buckets=(bucket(17, 64, 64), bucket(1, 64, 64)))
    dataset = measured([(17, 64, 64)] * clips + [(1, 64, 64)] * 3)
    lines = list(make_plan(data, dataset, seed=0).counts.lines())
    assert f"17x64x64: {told}" in lines

"""An index's table: written whole, opened without reading a row, each row read as it is asked for."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import attrs
import numpy as np
import pyarrow as pa
import pytest

from mm_config.schema import UserError
from mm_data.index.table import ROWS, Flag, Head, IndexedRecords, write_head, write_table

NUM_ROWS = 3


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three rows over two places: a cut of a file, a part of a shard, and an object on a network."""
    folder = tmp_path / "index"
    folder.mkdir()
    columns = {name: np.zeros(NUM_ROWS, kind) for name, kind in ROWS.items()}
    columns["media"][:] = columns["place"][:] = range(NUM_ROWS)
    columns["frames"][:] = (10, 20, 1)
    columns["fps_num"][:], columns["fps_den"][:] = (24000, 8, 0), (1001, 1, 1)
    columns["cut_start"][0], columns["cut_end"][0] = 5, 15
    columns["offset"][1], columns["length"][1] = 2**40, 512
    columns["flags"][:] = (Flag.CUT, Flag.PART | Flag.CROP, Flag.IMAGE)
    write_table(folder / "rows.arrow", columns)
    write_table(folder / "media.arrow", {"height": [480, 64, 7], "width": [832, 96, 9]})
    write_table(folder / "places.arrow", {"path": ["clips/a.mp4", "shard.tar", "s3://bucket/c.png"]})
    texts = {
        "name": ["clips/a.mp4", "shard.tar/b.mp4", "s3://bucket/c.png"],
        "captions": [["one"], ["two", "zwei"], ["three"]],
        "crop": [None, [1, 2, 30, 40], None],
    }
    write_table(folder / "texts.arrow", texts)
    write_head(folder, Head("toy", "0" * 64, "1" * 64, "..", NUM_ROWS))
    return folder


def test_rows_become_records_when_they_are_asked_for(index: Path) -> None:
    first, second, third = IndexedRecords(index)
    root = index.parent.resolve()
    assert (first.path, first.caption, first.captions) == (root / "clips/a.mp4", "one", ())
    assert (first.cut, first.crop, first.part, first.url) == ((5, 15), None, None, None)
    assert first.measured is not None and first.measured.fps == Fraction(24000, 1001)
    assert attrs.astuple(first.measured)[0::2] == (10, 480)
    assert (second.captions, second.part, second.crop) == (("two", "zwei"), (2**40, 512), (1, 2, 30, 40))
    assert (third.url, third.cut) == ("s3://bucket/c.png", None)
    assert third.measured is not None and third.measured.fps == 0


def test_it_is_a_sequence(index: Path) -> None:
    records = IndexedRecords(index)
    assert len(records) == NUM_ROWS
    assert records[-1] == records[2]
    assert [one.caption for one in records[1:]] == ["two", "three"]
    with pytest.raises(IndexError, match="row 3 of 3"):
        records[3]


def test_columns_are_views_of_the_file(index: Path) -> None:
    records = IndexedRecords(index)
    frames = records.columns("frames")
    assert frames.tolist() == [10, 20, 1] and frames.dtype == np.uint32
    assert not frames.flags.writeable and not frames.flags.owndata
    with pa.memory_map(str(index / "rows.arrow")) as file:
        assert pa.ipc.open_file(file).read_all().column("frames").to_pylist() == [10, 20, 1]


def test_the_data_may_lie_elsewhere(index: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert IndexedRecords(index, root=elsewhere)[0].path == elsewhere.resolve() / "clips/a.mp4"


@pytest.mark.parametrize("place", ["../a.mp4", "/etc/passwd", "link.mp4", "/data/../etc/passwd"])
def test_paths_lead_into_allowed_folders_only(index: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    (index / "places.arrow").unlink()
    write_table(index / "places.arrow", {"path": [place] * NUM_ROWS})
    with pytest.raises(UserError, match="row 1 names"):
        IndexedRecords(index, roots=(Path("/data"),))[1]


def test_absolute_paths_into_named_folders_are_allowed(index: Path, tmp_path: Path) -> None:
    shared = tmp_path.resolve() / "shared"
    (index / "places.arrow").unlink()
    write_table(index / "places.arrow", {"path": [str(shared / "a.mp4")] * NUM_ROWS})
    assert IndexedRecords(index, root=index, roots=(shared,))[0].path == shared / "a.mp4"


def test_what_is_no_index_is_told_from_a_damaged_one(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no index.json; `mm data index SRC"):
        IndexedRecords(tmp_path)
    rows = index / "rows.arrow"
    rows.write_bytes(rows.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"rows.arrow: can't be read"):
        IndexedRecords(index)
    head = json.loads((index / "index.json").read_text("utf-8"))
    (index / "index.json").write_text(json.dumps({**head, "v": 2}), encoding="utf-8")
    with pytest.raises(UserError, match="is an index of version 2, expected 1"):
        IndexedRecords(index)

"""Indexes that somebody edited or cut off: a line that names what is wrong, wherever it is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_config.schema import UserError
from mm_config.specs import DataSpec
from mm_data import Dataset
from mm_data.content import clip_digests
from mm_data.index.table import ROWS, IndexedRecords, read_table, write_table
from mm_data.plan.missing import missing_files
from mm_data.streaming.stream import stream
from tests.mm_data.conftest import Coded
from tests.mm_data.sources import index_of, listed

CLIPS = 12
Read = Callable[[Dataset], object]


@pytest.fixture
def index(tmp_path: Path, coded: Coded) -> Path:
    """The index of twelve clips."""
    names = [f"{number}.mp4" for number in range(CLIPS)]
    for name in names:
        coded.write(tmp_path / name, range(12))
    index_of(tmp_path, [listed(tmp_path, name) for name in names], tmp_path / "index")
    return tmp_path / "index"


def opened(index: Path) -> Dataset:
    records = IndexedRecords(index)
    return Dataset(records.root, records, records.head.order_key)


def indexed(dataset: Dataset) -> IndexedRecords:
    assert isinstance(dataset.records, IndexedRecords)
    return dataset.records


def rewritten(table: Path, **columns: pa.Array) -> None:
    """Puts other columns in the place of some of a table's."""
    batch = read_table(table)
    kept = {name: pa.concat_arrays([batch.column(name)]) for name in batch.schema.names}
    write_table(table, kept | columns)


def led_astray(texts: pa.Array) -> pa.Array:
    """The same texts, or lists of texts, the sixth of which ends far out of memory."""
    kept, offsets, *rest = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[: len(texts) + 1].copy()
    ends[6] = 2**30
    buffers = [kept, pa.py_buffer(ends.tobytes())]
    if pa.types.is_list(texts.type):
        return pa.ListArray.from_buffers(texts.type, len(texts), buffers, children=[texts.values])
    return pa.Array.from_buffers(texts.type, len(texts), [*buffers, *rest])


READS: dict[str, Read] = {
    "rows": lambda dataset: list(dataset.records),
    "parts": lambda dataset: indexed(dataset).parts(),
    "digests": clip_digests,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("column", ["texts.captions", "texts.name", "media.sha256", "places.path"])
def test_offsets_that_lead_out_of_memory_are_not_followed(index: Path, column: str, read: Read) -> None:
    table, _, name = column.partition(".")
    path = index / f"{table}.arrow"
    rewritten(path, **{name: led_astray(read_table(path).column(name))})
    if read is READS["rows"] and name in ("name", "sha256"):
        assert len(list(opened(index).records)) == CLIPS  # A clip's record needs neither.
        return
    with pytest.raises(UserError, match=r"damaged|not a path"):
        read(opened(index))


def test_missing_files_are_looked_for_along_whole_paths_alone(index: Path) -> None:
    path = index / "places.arrow"
    rewritten(path, path=led_astray(read_table(path).column("path")))
    with pytest.raises(UserError, match="its paths are damaged"):
        missing_files(opened(index))


@pytest.mark.parametrize(("column", "value"), [("media", 999), ("place", 999), ("fps_den", 0)])
def test_rows_that_fit_no_table_are_named(index: Path, column: str, value: int) -> None:
    values = read_table(index / "rows.arrow").column(column).to_numpy().copy()
    values[3] = value
    rewritten(index / "rows.arrow", **{column: pa.array(values)})
    with pytest.raises(UserError, match="row 3 is damaged"):
        _ = opened(index).records[3]
    if column != "fps_den":
        with pytest.raises(UserError, match="a row points behind its end"):
            clip_digests(opened(index))


@pytest.mark.parametrize("table", ["rows", "texts", "media", "places"])
def test_a_table_that_is_a_pipe_empty_or_another_is_a_line(index: Path, table: str) -> None:
    path = index / f"{table}.arrow"
    schema = read_table(path).schema
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is a pipe"):
        list(opened(index).records)
    path.unlink()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema):
        pass
    with pytest.raises(UserError, match=f"{table}.arrow: can't be read"):
        list(opened(index).records)
    write_table(path, {"other": np.arange(CLIPS)})
    with pytest.raises(UserError, match=r"doesn't belong to its index\.json"):
        list(opened(index).records)


def test_columns_of_another_kind_and_gaps_are_refused(index: Path) -> None:
    for values in (pa.array([None, *range(CLIPS - 1)], pa.uint32()), pa.array(["1"] * CLIPS)):
        rewritten(index / "rows.arrow", frames=values)
        with pytest.raises(UserError, match="holds other columns than those of an index"):
            opened(index)
    assert set(read_table(index / "rows.arrow").schema.names) == set(ROWS)


@pytest.mark.parametrize("edited", [{"root": 5}, {"root": None}, {"rows": "12"}, "[" * 100_000])
def test_a_head_that_says_nonsense_is_a_line(index: Path, edited: dict[str, object] | str) -> None:
    head = index / "index.json"
    text = edited if isinstance(edited, str) else json.dumps({**json.loads(head.read_text()), **edited})
    head.write_text(text)
    with pytest.raises(UserError, match=r"index\.json: can't be read"):
        opened(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_tells_what_is_wrong_with_an_index(
    index: Path, workers: int, data_spec: Callable[..., DataSpec]
) -> None:
    rewritten(index / "places.arrow", path=pa.array(["/etc/passwd"] * CLIPS))
    asked: dict[str, Any] = {"seed": 0, "end_step": 3, "workers": workers}
    with (
        pytest.raises(UserError, match=r"^\S*index: row \d+ names '/etc/passwd': an absolute path"),
        stream(data_spec(), opened(index), **asked) as batches,
    ):
        list(batches)


@pytest.mark.parametrize(
    "line",
    [
        '[["a", 0, 0], "state", {}]',
        '[[["a"], 0, 0], ["state"], ["open", "why"]]',
        '[["a", "b", 0], "state", ["open", "why"]]',
        "[" * 100_000,
        '"seconds": "12/0"',
        '"width": null',
        '"num_frames": -12',
    ],
)
def test_lines_of_a_journal_that_make_no_sense_count_for_nothing(
    index: Path, tmp_path: Path, line: str
) -> None:
    journal = index / "measured.jsonl"
    key, _, value = line.partition(": ")
    text = journal.read_text()
    edited = re.sub(f"{key}: [^,}}]*", line, text) if value and line[0] == '"' else f"{text}{line}\n"
    assert edited != text
    journal.write_text(edited)
    names = [f"{number}.mp4" for number in range(CLIPS)]
    assert index_of(tmp_path, [listed(tmp_path, name) for name in names], index).changes == ()

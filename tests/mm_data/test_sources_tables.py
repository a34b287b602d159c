"""Tables of clips as people have them: what each row says, and what is wrong, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_config.schema import UserError
from mm_data.index.listed import Declared, LeftOut, Listed
from mm_data.index.sources.opening import Reading, open_source

SPELLINGS = '`"resolution": {"height": 480, "width": 832}` or `"height": 480, "width": 832`'


def read(path: Path, **options: str) -> list[Listed | LeftOut]:
    return list(open_source(str(path), Reading(**options)).listed)  # pyright: ignore[reportArgumentType]


def mistakes(path: Path, **options: str) -> list[str]:
    """What is wrong with a source, from its own folder on."""
    with pytest.raises(UserError) as found:
        read(path, **options)
    return [f"{one}".replace(f"{path.parent.resolve()}/", "") for one in found.value.problems]


def clip(path: Path, name: str, *captions: str, line: int | str, **known: object) -> Listed:
    """What a table of a folder says of a clip in it."""
    root = path.parent.resolve()
    place = f"{root / path.name}:{line}"
    return Listed(name, root / name, captions, place, **known)  # pyright: ignore[reportArgumentType]


def test_the_list_of_mindspeeds_guide(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("""[
    {
        "path": "./videos/video000001.mp4",
        "cap": "A scenic view of mountains during sunrise.",
        "num_frames": 81,
        "fps": 24,
        "resolution": {"height": 480, "width": 832}
    },
    {"path": "videos/2.mp4", "cap": ["One.", "Two.", "One."], "frame_idx": "7:72", "num_frames": 65,
     "duration": 10.5, "aes": "5.25", "crop": [8, 72, 0, 48], "height": 48, "width": 80},
    {"path": "videos/2.mp4", "cap": "x", "cut": [3], "num_frames": 17, "aesthetic": 4},
    {"path": "videos/2.mp4", "cap": "x", "cut": [[0, 5], [5, 9]]}
]
""")
    assert read(path) == [
        clip(
            path,
            "videos/video000001.mp4",
            "A scenic view of mountains during sunrise.",
            line=2,
            declared=Declared(num_frames=81, fps=24.0, height=480, width=832),
        ),
        clip(
            path,
            "videos/2.mp4",
            "One.",
            "Two.",
            line=9,
            cut=(7, 72),
            crop=(0, 8, 48, 64),
            declared=Declared(duration=10.5, aesthetic=5.25, height=48, width=80),
        ),
        clip(path, "videos/2.mp4", "x", line=11, cut=(3, 20), declared=Declared(aesthetic=4.0)),
        clip(path, "videos/2.mp4", "x", line=12, shots=((0, 5), (5, 9))),
    ]


def test_a_resolution_without_names_is_refused_with_its_lines_and_the_accepted_spellings(
    tmp_path: Path,
) -> None:
    entry = '{\n"path": "1.mp4",\n"cap": "x",\n"resolution": {480, 832}\n}'
    (path := tmp_path / "data.json").write_text(f"[\n{entry},\n{entry}\n]")
    (lines := tmp_path / "data.jsonl").write_text(
        '{"path": "1.mp4", "cap": "x", "resolution": {480, 832}}\n' * 2
    )
    refused = f'"resolution": {{480, 832}} is not JSON; write {SPELLINGS}'
    assert mistakes(path) == [f"data.json:5: {refused}", f"data.json:10: {refused}"]
    assert mistakes(lines) == [f"data.jsonl:1: {refused}", f"data.jsonl:2: {refused}"]
    path.write_text('[{"path": "1.mp4", "cap": "x", "resolution": [480, 832]}]')
    assert mistakes(path) == [f"data.json:1: 'resolution' must be {SPELLINGS}, got [480, 832]"]


TABLES = {
    "metadata.csv": '\ufeffvideo,prompt,num_frames\r\na\\b.mp4,"one,\r\ntwo",17\r\nc.png,three,\r\n',
    "metadata.tsv": 'video\tprompt\tnum_frames\na\\b.mp4\t"one,\r\ntwo"\t17\nc.png\tthree\t\n',
    "semicolons.csv": 'video;prompt;num_frames\na\\b.mp4;"one,\r\ntwo";17\nc.png;three;\n',
    "metadata.jsonl": "\ufeff"
    + json.dumps({"video": "a\\b.mp4", "prompt": "one,\r\ntwo", "num_frames": 17})
    + "\r\n\r\n\r\n"
    + json.dumps({"video": "c.png", "prompt": "three"}),
    "metadata.json": "\ufeff[\r\n"
    + json.dumps({"video": "a\\b.mp4", "prompt": "one,\r\ntwo", "num_frames": 17})
    + ",\r\n\r\n"
    + json.dumps({"video": "c.png", "prompt": "three"})
    + "]",
}
"""One table with a byte order mark, Windows' separators and line ends, in each way of writing it."""
LINES = {"metadata.jsonl": (1, 4), "metadata.json": (2, 4)}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_windows_writes_them(name: str, tmp_path: Path) -> None:
    (path := tmp_path / name).write_bytes(TABLES[name].encode())
    first, second = LINES.get(name, (2, 4))
    assert read(path) == [
        clip(path, "a/b.mp4", "one,\r\ntwo", line=first, declared=Declared(num_frames=17)),
        clip(path, "c.png", "three", line=second),
    ]


def test_parquet_and_what_datasets_saves_on_disk(tmp_path: Path) -> None:
    table = pa.table(
        {
            "file_name": ["1.mp4", "2.mp4"],
            "caption": [["one", "eins"], []],
            "fps": [23.976, None],
            "thumbnail": [b"\xff", None],
        }
    )
    pq.write_table(table, path := tmp_path / "clips.parquet")
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "dataset_info.json").write_text("{}")
    (saved / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    arrow = saved / "data-00000-of-00001.arrow"
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for source, file in ((path, path), (saved, arrow)):
        one, two = read(source)
        assert one == clip(file, "1.mp4", "one", "eins", line=1, declared=Declared(fps=23.976))
        assert two == LeftOut("2.mp4", f"{file.resolve()}:2", "it has no caption")
    (saved / "state.json").write_text('{"_indices_files": [{"filename": "indices.arrow"}]}')
    assert "save it by flatten_indices() first" in mistakes(saved)[0]
    path.write_bytes(b"PAR1 and no more")
    assert mistakes(path)[0].startswith("clips.parquet: not Parquet that can be read: ")


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_text("video,image,short,text,caption,extra\nv.mp4,i.png,s,t,c,e\n")
    assert mistakes(path) == [
        "t.csv: 'video' and 'image' could both be meant; name the column by --path-column",
        "t.csv: 'caption' and 'text' could both be meant; name the column by --caption-column",
    ]
    named = Reading("video", "short")
    assert read(path, path_column="video", caption_column="short") == [clip(path, "v.mp4", "s", line=2)]
    notes = open_source(str(path), named).notes
    assert notes == ("columns that are not read: image, text, caption, extra",)
    assert mistakes(path, path_column="vidoe", caption_column="short") == [
        "t.csv: there is no column 'vidoe'; did you mean video?; columns: 'video', 'image', 'short', 'text', "
        "'caption', 'extra'"
    ]
    path.write_text("a,b\n1,2\n")
    assert mistakes(path)[0] == "t.csv: none is known among 'a', 'b'; name the column by --path-column"


def test_lines_that_are_no_rows_hide_no_wrong_rows(tmp_path):
    lines = ['{"path": 7, "cap": "a"}', "no", '{"path": "a", "cap": 1}', '["a"]', '{"cap": "b"}']
    (path := tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert mistakes(path) == [
        "t.jsonl:1: 'path' must be the path of a file, got 7",
        "t.jsonl:2: not JSON: Expecting value at column 1",
        "t.jsonl:3: 'cap' must be a text or a list of texts, got 1",
        't.jsonl:4: expected an object, got ["a"]',
        "t.jsonl:5: the key 'path' is missing",
    ]


WRONG = {
    "nothing.csv": ("", "1: the file is empty"),
    "not_json.json": (
        '[{"path": "a", "cap": "c"},\n{"path" "b"}]',
        "2: not JSON: Expecting ':' delimiter at column 9",
    ),
    "no_list.json": ('{"path": "a"}', 'expected a JSON list of objects, got \'{"path": "a"}\''),
    "open.json": (
        '[{"path": "a", "cap": "b"}',
        "1: expected , or ] between entries, got the end of the file",
    ),
    "twice.jsonl": (
        '{"path": "a", "path": "b"}',
        "1: not JSON that can be read: the key 'path' is given twice",
    ),
    "number.jsonl": ('\n{"path": 7, "cap": "b"}', "2: 'path' must be the path of a file, got 7"),
    "caption.jsonl": ('{"path": "a", "cap": [1]}', "1: 'cap' must be a text or a list of texts, got [1]"),
    "half.jsonl": (
        '{"path": "a", "cap": "\\ud800"}',
        "1: 'cap' holds half of a surrogate pair, which is no character",
    ),
    "long.jsonl": (
        json.dumps({"path": "a", "cap": "x" * 65_537}),
        "1: 'cap' has more than 65,536 characters",
    ),
    "cut.jsonl": (
        '{"path": "a", "cap": "b", "frame_idx": "9:9"}',
        "1: a cut must end after its first frame, got 9:9",
    ),
    "cut2.jsonl": (
        '{"path": "a", "cap": "b", "cut": [1, 2, 3]}',
        '1: a cut must be `"cut": [first, end]` or `"frame_idx": "first:end"`, got [1, 2, 3]',
    ),
    "crop.jsonl": (
        '{"path": "a", "cap": "b", "crop": [9, 1, 0, 5]}',
        "1: 'crop' must be [left, right, top, bottom] in pixels, got [9, 1, 0, 5]",
    ),
    "fps.csv": ("path,cap,fps\na,b,fast\n", "2: 'fps' must be a number, got \"fast\""),
    "frames.csv": (
        "path,cap,num_frames\na,b,1.5\n",
        "2: 'num_frames' must be a whole number above 0, got \"1.5\"",
    ),
    "huge.jsonl": (
        '{"path": "a", "cap": "b", "fps": 1' + "0" * 400 + "}",
        "1: 'fps' must be a number, got 1" + "0" * 59,
    ),
    "url.csv": (
        "path,cap\nhttp://me:secret@127.0.0.1/a.mp4,b\n",
        "2: only s3:// is read over the network, not http://: 'http://***@127.0.0.1/a.mp4'",
    ),
    "cells.csv": ("path,cap\na,b\nc\n", "3: 1 cell, and the header has 2"),
    "quote.csv": ('path,cap\na,"b\n', "2: not CSV: unexpected end of data"),
    "header.csv": ("path,path\na,b\n", "1: expected names of columns, each once, got ['path', 'path']"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    (tmp_path / name).write_text(text)
    where = name if message.startswith("expected a JSON") else f"{name}:"
    assert mistakes(tmp_path / name) == [f"{where}{': ' if where == name else ''}{message}"]


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_bytes("path,cap\na,b".encode("utf-16"))
    assert mistakes(path) == ["t.csv: is UTF-16; save it as UTF-8"]
    path.write_bytes("path,cap\na,é".encode("latin-1"))
    assert mistakes(path) == ["t.csv:2: not UTF-8: unexpected end of data; save it as UTF-8"]


def test_numbers_as_tables_write_them(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_text(
        "path,cap,fps,num_frames,cut,resolution\n"
        'a,b,30000/1001,81.0,"[2, 9]","{""height"": 4, ""width"": 6}"\n'
    )
    (one,) = read(path)
    assert isinstance(one, Listed) and one.cut == (2, 9)
    assert one.declared == Declared(num_frames=81, fps=30000 / 1001, height=4, width=6)

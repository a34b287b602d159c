"""Folders of clips: captions beside them, tables of their own, and where clips may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mm_config.options import load_locations
from mm_config.schema import UserError
from mm_data.index.listed import LeftOut, Listed
from mm_data.index.sources.files import roots_of
from mm_data.index.sources.opening import Reading, open_source


def read(path: Path, *roots: Path) -> list[Listed | LeftOut]:
    return list(open_source(str(path), Reading(roots=roots)).listed)


def mistakes(path: Path, *roots: Path) -> list[str]:
    with pytest.raises(UserError) as found:
        read(path, *roots)
    return [str(one) for one in found.value.problems]


def write(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (found := tmp_path.resolve() / "clips").mkdir()
    return found


def test_a_folder_with_captions_beside_its_clips(root: Path) -> None:
    write(root, "b.mp4", "a.PNG", "deep/er/c.webm", "lone.mov", "notes.md", ".hidden.mp4", ".git/x.mp4")
    write(root, "b.txt", "deep/er/c.txt", "widow.txt", text="\ufeff a caption\r\n")
    write(root, "a.txt", text=" \n")
    found = read(root)
    assert found == [
        LeftOut("a.PNG", f"{root}/a.PNG", "it has no caption"),
        Listed("b.mp4", root / "b.mp4", ("a caption",), f"{root}/b.mp4"),
        Listed("deep/er/c.webm", root / "deep/er/c.webm", ("a caption",), f"{root}/deep/er/c.webm"),
        LeftOut("lone.mov", f"{root}/lone.mov", "it has no caption"),
        LeftOut("notes.md", f"{root}/notes.md", "its name's ending is no video's, picture's or caption's"),
        LeftOut("widow.txt", f"{root}/widow.txt", "a caption without a clip beside it"),
    ]


def test_a_caption_that_is_no_text_is_a_mistake(root: Path) -> None:
    write(root, "a.mp4", "b.mp4")
    (root / "a.txt").write_bytes(b"caf\xe9")
    (root / "b.txt").write_bytes(b"x" * (2**20 + 1))
    assert mistakes(root) == [
        f"{root}/a.mp4: a.txt:1: not UTF-8: unexpected end of data; save it as UTF-8",
        f"{root}/b.mp4: b.txt: has more than 1,048,576 bytes",
    ]


def test_a_folder_with_its_own_table_as_hugging_face_and_diffsynth_have_it(root: Path) -> None:
    write(root, "one/metadata.csv", text="file_name,text\n1.mp4,first\n")
    write(root, "two/metadata.jsonl", text='{"file_name": "sub/2.mp4", "text": "second"}\n')
    write(root, "one/1.mp4", "two/sub/2.mp4", "one/unlisted.mp4")
    assert read(root) == [
        Listed("one/1.mp4", root / "one/1.mp4", ("first",), f"{root}/one/metadata.csv:2"),
        Listed("two/sub/2.mp4", root / "two/sub/2.mp4", ("second",), f"{root}/two/metadata.jsonl:1"),
    ]
    write(root, "one/metadata.json", text="[]")
    assert mistakes(root) == [
        f"{root}: holds several tables; name one of one/metadata.csv, one/metadata.json, two/metadata.jsonl"
    ]


def test_splits_are_not_mixed(root: Path) -> None:
    write(root, "train/1.mp4", "train/1.txt", "validation/2.mp4", "validation/2.txt")
    assert mistakes(root) == [f"{root}: holds the splits train, validation; name one, such as {root}/train"]
    assert [one.name for one in read(root / "train")] == ["1.mp4"]


def test_folders_that_say_nothing(root: Path, tmp_path: Path) -> None:
    assert mistakes(root) == [f"{root}: the folder is empty"]
    assert mistakes(tmp_path / "none") == [f"{tmp_path}/none: no such file or folder"]
    write(root, "data.json", "readme.md")
    assert mistakes(root) == [f"{root}: holds neither clips nor a list of them; name the table: data.json"]
    assert mistakes(root / "readme.md") == [
        f"{root}/readme.md: can't be taken for clips by its name; expected a folder, a table (.json, .jsonl, "
        ".ndjson, .csv, .tsv, .parquet, .arrow), data.txt, .tar or .toml"
    ]
    write(root, "a.mp4", "b.tar")
    assert mistakes(root) == [f"{root}: holds clips and tar shards; name one of them"]


def test_paths_stay_inside_the_source(root: Path) -> None:
    write(root.parent, "secret.mp4", "clips-2/c.mp4")
    (root / "link.mp4").symlink_to(root.parent / "secret.mp4")
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "folder").symlink_to(root.parent / "clips-2")
    (root / "is_folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    names = [
        "../secret.mp4",
        "a/../../secret.mp4",
        "..\\secret.mp4",
        "/etc/passwd",
        str(root.parent / "clips-2/c.mp4"),
        "link.mp4",
        "folder/c.mp4",
        "loop.mp4",
        "is_folder.mp4",
        "pipe.mp4",
        "C:\\clips\\1.mp4",
        "http://127.0.0.1/a.mp4",
        "concat:a.mp4|b.mp4",
        "",
    ]
    lines = "".join(f'"{name}",caption\n' for name in names)
    write(root, "t.csv", text=f"path,caption\n{lines}")
    allow = "`--location NAME={}` or a line of locations.yaml allows a folder"
    outside = f"out of {root}; {allow.format(root.parent)}"
    expected = [
        "`..` is not allowed in a path",
        "`..` is not allowed in a path",
        "`..` is not allowed in a path",
        f"an absolute path out of {root}; {allow.format('/etc')}",
        f"an absolute path out of {root}; {allow.format(root.parent / 'clips-2')}",
        f"a link that leads {outside}",
        f"a link that leads out of {root}; {allow.format(root.parent / 'clips-2')}",
        None,
        "not a regular file",
        "not a regular file",
        "a path of a Windows drive, which is none here",
        "only s3:// is read over the network, not http://",
        None,
        "not a path",
    ]
    told = dict(one.split(": ", 1) for one in mistakes(root / "t.csv"))
    for number, (name, message) in enumerate(zip(names, expected, strict=True), 2):
        place = f"{root}/t.csv:{number}"
        if message is not None:
            assert told.pop(place) == f"{message}: {name!r}"
    # A link to itself has words of the system's. `concat:` is a name like any other: no file, opened by us.
    assert list(told) == [f"{root}/t.csv:9"]


def test_folders_that_the_location_table_names_are_allowed(root: Path, tmp_path: Path) -> None:
    shared = tmp_path.resolve() / "shared"
    write(shared, "films/1.mp4", "films/1.txt", "2.mp4", "2.txt")
    (root / "films").symlink_to(shared / "films")
    (root / "again").symlink_to(shared / "films")
    write(root, "here.mp4", "here.txt")
    write(root, "list.csv", text=f"path,caption\n{shared}/2.mp4,two\nfilms/1.mp4,one\n")
    assert len(mistakes(root)) == 2 and len(mistakes(root / "list.csv")) == 2
    roots = roots_of(load_locations([f"films={shared}"]))
    assert roots == (shared,)
    assert [getattr(one, "path", None) for one in read(root / "list.csv", *roots)] == [
        shared / "2.mp4",
        shared / "films/1.mp4",
    ]
    (root / "list.csv").unlink()
    # What two links lead to is walked once.
    assert [one.name for one in read(root, *roots)] == ["again/1.mp4", "here.mp4"]


def test_pairs_of_folders_and_tables_as_mindspeed_has_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "data/pixabay/1.mp4", "here/clips/2.mp4")
    write(tmp_path, "data/pixabay/data.json", text='[{"path": "1.mp4", "cap": "one"}]')
    write(tmp_path, "here/two.csv", text="path,caption\n2.mp4,two\n")
    write(tmp_path, "here/data.txt", text="./data/pixabay, ./data/pixabay/data.json\r\n\r\nclips,two.csv\n")
    monkeypatch.chdir(tmp_path)
    base = tmp_path.resolve()
    assert read(tmp_path / "here/data.txt") == [
        Listed("1.mp4", base / "data/pixabay/1.mp4", ("one",), f"{base}/data/pixabay/data.json:1"),
        Listed("2.mp4", base / "here/clips/2.mp4", ("two",), f"{base}/here/two.csv:2"),
    ]
    write(tmp_path, "here/data.txt", text="clips\n/etc,two.csv\nclips,none.json\nclips,../two.csv\n")
    assert mistakes(tmp_path / "here/data.txt") == [
        f"{base}/here/data.txt:1: expected FOLDER,TABLE, got 'clips'",
        f"{base}/here/data.txt:2: a folder out of {base}/here; `--location NAME=/etc` or a line of "
        "locations.yaml allows a folder",
        f"{base}/here/data.txt:3: no such table",
        f"{base}/here/data.txt:4: `..` is not allowed in a path",
    ]

"""Files and folders that are whole or not there: what errors, killed processes and other writers leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_config.durable.digests import sha256_of, size_and_sha256
from mm_config.durable.writing import (
    discard,
    set_aside,
    staged_file,
    staged_folder,
    synced_file,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_with_the_whole_content(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_text(file, "first \u706b\r\n")
    assert file.read_bytes() == b"first \xe7\x81\xab\r\n"
    write_bytes(file, b"\x00second")
    assert file.read_bytes() == b"\x00second"
    assert names(tmp_path) == ["file.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_was_there_stays_until_the_block_ends_well(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_file(file) as stage:
        stage.write_text("half")
        assert file.read_text() == "old"
        raise KeyboardInterrupt
    assert (names(tmp_path), file.read_text()) == (["file.txt"], "old")
    with staged_file(file) as stage, staged_file(file) as other:
        stage.write_text("first")
        other.write_text("second")
        assert file.read_text() == "old"
    assert (names(tmp_path), file.read_text()) == (["file.txt"], "first")


def test_an_unwritable_place_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "taken", "text")
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "file.txt", "text")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file.txt", "\udcff")
    assert names(tmp_path) == ["taken"]


KILLED = """
import os, pathlib, sys
from mm_config.durable.writing import staged_file, staged_folder
make = staged_file if sys.argv[2] == "file" else staged_folder
with make(pathlib.Path(sys.argv[1])) as stage:
    (stage / "part" if stage.is_dir() else stage).write_text("half")
    os._exit(9)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_process_leaves_a_stage_that_hinders_nobody(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(place), kind], check=False)
    assert ended.returncode == 9
    (left,) = (path for path in tmp_path.iterdir() if path != place)
    assert left.name.startswith(".place.")
    if kind == "file":
        assert place.read_text() == "old"
        write_text(place, "new")
        assert place.read_text() == "new"
    else:
        assert not place.exists()
        with staged_folder(place) as stage:
            (stage / "part").write_text("whole")
        assert (place / "part").read_text() == "whole"
    assert left.exists() == (kind == "file")


def recorded(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> list[tuple[str, int]]:
    """What was synced and what got its name, by inode, in order."""
    events: list[tuple[str, int]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("sync", os.fstat(descriptor).st_ino))

    def renamed(source: Path, target: Path) -> None:
        (replace if Path(source).is_file() else rename)(source, target)
        events.append(("rename", os.stat(target).st_ino))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", synced)
        patched.setattr(os, "rename", renamed)
        patched.setattr(os, "replace", renamed)
        write()
    return events


def test_the_disk_holds_content_before_the_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    events = recorded(monkeypatch, lambda: write_text(file, "text"))
    inode, beside = file.stat().st_ino, tmp_path.stat().st_ino
    assert events == [("sync", inode), ("rename", inode), ("sync", beside)]

    def write() -> None:
        with staged_folder(folder) as stage:
            (stage / "inner").mkdir()
            with synced_file(stage / "inner" / "file") as content:
                content.write(b"text")

    events = recorded(monkeypatch, write)
    inside = [path.stat().st_ino for path in (folder / "inner" / "file", folder, folder / "inner")]
    assert events[:3] == [("sync", inode) for inode in inside]
    assert events[3:] == [("rename", folder.stat().st_ino), ("sync", beside)]


def test_a_folder_is_removed_where_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "folder") as stage:
        (stage / "part").touch()
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("taken", ["folder", "link"])
def test_a_folder_never_replaces_what_is_there(tmp_path: Path, taken: str) -> None:
    place = tmp_path / "place"
    with pytest.raises(FileExistsError) as caught, staged_folder(place) as stage:
        (stage / "part").touch()
        place.mkdir() if taken == "folder" else place.symlink_to("nowhere")
    assert caught.value.filename == str(place)
    assert names(tmp_path) == ["place"]
    assert place.is_symlink() or not list(place.iterdir())


def test_a_file_of_a_staged_folder_is_new(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileExistsError), synced_file(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("failing", ["rename", "unlink", None])
def test_what_is_removed_loses_its_name_before_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str | None
) -> None:
    place = tmp_path / "step"
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "part").write_text("part")

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    if failing is None:
        discard(place)
        assert names(tmp_path) == []
        return
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(os, failing, fails)
        discard(place)
    (left,) = tmp_path.iterdir()
    assert (left / "inner" / "part").read_text() == "part"
    assert left.name == "step" if failing == "rename" else left.name.startswith(".step.")


def test_a_link_is_removed_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "trash").mkdir()
    discard(tmp_path / "link", tmp_path / "trash" / "link")
    assert names(tmp_path) == ["kept", "trash"]
    assert names(tmp_path / "trash") == []


def test_what_is_damaged_is_set_aside_beside_what_was_before(tmp_path: Path) -> None:
    for content in ("first", "second"):
        write_text(tmp_path / "file", content)
        aside = set_aside(tmp_path / "file")
        assert aside.read_text() == content
    assert names(tmp_path) == ["file.damaged", "file.damaged-2"]


def test_digests_are_those_of_fips_180(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(file) == known
    assert size_and_sha256(file) == {"bytes": 3, "sha256": known}
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "missing")

"""Digests of content, against a second plain implementation, and what is remembered of files."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mm_config.content import (
    NUMERICS,
    Input,
    Part,
    file_input,
    made_of,
    parts_input,
    remembered,
    sha256_of_files,
)
from mm_config.content.inputs import in_turn, last_in_turn, pinned, trained_by_digest
from mm_config.content.parts import differences, digest_of_parts, keep_parts, kept_parts, told_differences
from mm_config.schema import UserError

A, B, SPEC = "a" * 64, "b" * 64, "5" * 64
CLIPS = (Part("x.mp4", (A, "a red circle", None)), Part("y.mp4", (B, "a blue square", None)))


def plain(value: object) -> str:
    """RFC 8785 of what holds ASCII and integers alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_made_of_is_the_sha256_of_spec_numerics_and_digests() -> None:
    inputs = {
        "spec.low_noise": Input(digest=B, kind="x"),
        "spec.high_noise": Input(digest=A, kind="x", name="n"),
    }
    assert made_of(SPEC, inputs) == sha256(
        f'{{"inputs":{{"spec.high_noise":"{A}","spec.low_noise":"{B}"}},"kind":"made-of",'
        f'"numerics":{NUMERICS},"spec":"{SPEC}","v":1}}'
    )
    assert trained_by_digest(A, {"spec.data.dataset": B}, 700, "last") == sha256(
        f'{{"kind":"trained-by","made_of":"{A}","orders":{{"spec.data.dataset":"{B}"}},"step":700,"v":1,'
        '"weights":"last"}'
    )


def test_a_digest_of_parts_knows_no_order_and_no_place() -> None:
    lines = sorted(plain(list(part.content)) + "\n" for part in CLIPS)
    assert digest_of_parts(CLIPS) == sha256("".join(lines))
    moved = [Part("elsewhere/" + part.name, part.content) for part in reversed(CLIPS)]
    assert digest_of_parts(moved) == digest_of_parts(CLIPS)
    for changed in (CLIPS[:1], (*CLIPS, CLIPS[0]), (CLIPS[0], Part("y.mp4", (B, "a blue square", [0, 8])))):
        assert digest_of_parts(changed) != digest_of_parts(CLIPS)


def test_what_differs_is_told_by_name() -> None:
    changed = (
        Part("x.mp4", (B, "a red circle", None)),
        Part("y.mp4", (B, "a square", None)),
        Part("z.mp4", CLIPS[0].content),
    )
    assert list(differences(CLIPS, changed)) == [
        f"x.mp4 is sha256 {B[:12]}, was sha256 {A[:12]}",
        "y.mp4 is 'a square', was 'a blue square'",
        "z.mp4 is new",
    ]
    assert list(differences(CLIPS, reversed(CLIPS))) == []
    missing = (Part("x.mp4", (None, "a red circle", None)),)
    assert list(differences(CLIPS, missing)) == [f"x.mp4 is missing, was sha256 {A[:12]}", "y.mp4 is gone"]


def test_parts_are_kept_by_their_digest(tmp_path: Path) -> None:
    made = parts_input(CLIPS, tmp_path / "contents", kind="k", name="n", revision="1")
    assert (made.kind, made.name, made.digest) == ("k", "n", digest_of_parts(CLIPS))
    assert kept_parts(tmp_path / "contents", made.digest) == CLIPS
    assert kept_parts(tmp_path / "contents", A) is None
    (tmp_path / "contents" / f"{made.digest}.jsonl").write_text('["x.mp4", "other"]\n')
    assert kept_parts(tmp_path / "contents", made.digest) is None
    keep_parts(
        tmp_path / "contents" / f"{made.digest}.jsonl", A, CLIPS
    )  # No folder: nothing is kept or raised.


def test_the_first_differences_are_told_and_how_many_more(tmp_path: Path) -> None:
    now = (Part("x.mp4", (A, "a circle", None)), Part("z.mp4", (A, "new", None)))
    old, new = (parts_input(clips, tmp_path, kind="k").digest for clips in (CLIPS, now))
    caption = "x.mp4 is 'a circle', was 'a red circle'"
    assert told_differences(tmp_path, old, new, 9) == f"{caption}; y.mp4 is gone; z.mp4 is new"
    assert told_differences(tmp_path, old, new, 1) == f"{caption}; and 2 more"
    assert told_differences(tmp_path, old, A, 1) is None


class Reads:
    """Counts the files that are read to be hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = hashlib.file_digest

        def counted(*given: object) -> object:
            self.count += 1
            return real(*given)  # pyright: ignore[reportCallIssue, reportArgumentType]

        monkeypatch.setattr(hashlib, "file_digest", counted)

    def of(self, *paths: Path) -> int:
        before = self.count
        expected = [sha256(path.read_text()) if path.is_file() else None for path in paths]
        assert sha256_of_files(paths) == expected
        return self.count - before


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reads:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "RACY_NS", 0)
    return Reads(monkeypatch)


def test_a_file_is_read_again_only_where_it_changed(reads: Reads, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two", "gone")]
    for file in files[:2]:
        file.write_text(file.name)
    assert reads.of(*files, files[0]) == 2
    assert reads.of(*files) == 0
    files[0].write_text("eno")
    os.utime(files[0], ns=(0, 0))
    assert reads.of(*files) == 1  # Another text of the same length.
    kept = files[1].stat()
    files[1].write_text("owt")
    os.utime(files[1], ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert reads.of(*files) == 1  # The time of change of the inode tells it.
    files[1].rename(tmp_path / "three")
    assert reads.of(tmp_path / "three") <= 1
    os.mkfifo(files[2])
    assert reads.of(*files) == 0 and sha256_of_files([tmp_path]) == [None]


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    reads: Reads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remembered, "RACY_NS", 2 * 10**9)
    file = tmp_path / "young"
    file.write_text("a")
    assert reads.of(file) == reads.of(file) == 1


@pytest.mark.parametrize("home", [True, False])
def test_a_relative_cache_folder_is_ignored_and_without_a_home_nothing_is_kept(
    home: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")  # As Path.home() has it.

    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setattr(Path, "home", staticmethod((lambda: tmp_path / "home") if home else nowhere))
    assert sha256_of_files([tmp_path / "file"]) == [hashlib.sha256(b"content").hexdigest()]
    assert remembered.cache_file() == (tmp_path / "home/.cache/mm/digests.sqlite" if home else None)
    assert not (tmp_path / "cache").exists() and (tmp_path / "home").exists() is home


@pytest.mark.parametrize("damage", ["no folder", "no database", "read-only", "locked"])
def test_a_cache_that_cant_be_used_costs_time_only(
    damage: str, reads: Reads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, cache = tmp_path / "file", remembered.cache_file()
    assert cache is not None
    file.write_text("content")
    if damage == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif damage == "no database":
        cache.parent.mkdir(parents=True)
        cache.write_text("no database at all, but long enough to be looked at" * 100)
    elif damage == "read-only":
        monkeypatch.setattr(
            remembered.sqlite3,
            "connect",
            lambda where, **_: (
                sqlite3.connect(f"file:{cache}?mode=ro", uri=True)
                if where == cache
                else sqlite3.Connection(str(where))
            ),
        )
    else:
        assert reads.of(file) == 1
        monkeypatch.setattr(remembered, "_BUSY_SECONDS", 0.01)
        holder = sqlite3.connect(cache, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    assert reads.of(file) == 1
    if damage == "no database":
        assert reads.of(file) == 1 and reads.of(file) == 0  # It was removed, and made anew.


def test_processes_at_once_agree(reads: Reads, tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index}.bin").write_text(str(index))
    code = (
        "import sys, pathlib; from mm_config.content import sha256_of_files;"
        "print(*sha256_of_files(sorted(pathlib.Path(sys.argv[1]).glob('*.bin'))))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    expected = " ".join(sha256(path.stem) for path in sorted(tmp_path.glob("*.bin"))) + "\n"
    assert [process.communicate()[0] for process in started] == [expected] * 4


def test_a_file_that_a_field_names(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_text("pixels")
    found = file_input(tmp_path / "image.png")
    assert (found.digest, found.kind, found.name) == (sha256("pixels"), "file", None)
    with pytest.raises(UserError, match="is no file that can be read"):
        file_input(tmp_path / "none.png")


def test_a_run_that_read_several_contents_in_turn_is_made_of_all() -> None:
    first, second = Input(digest=A, kind="k", name="n"), Input(digest=B, kind="k", name="n")
    assert in_turn(first, first) == first
    both = in_turn(first, second)
    assert both.digest == sha256(f'{{"digests":["{A}","{B}"],"kind":"in-turn","v":1}}')
    assert in_turn(both, second) == both and last_in_turn(both).digest == B
    again = in_turn(both, first)
    assert again.details["in_turn"] == [A, B, A] and again.digest not in (A, B, both.digest)


def test_a_pinned_digest_is_met_or_refused() -> None:
    found = Input(digest=A, kind="k", name="n", details={"path": "/there"})
    assert pinned(found, None, "spec.x") == found and pinned(found, A, "spec.x").pinned
    with pytest.raises(UserError, match=rf"^spec\.x\.digest: is {B}, .* is {A} \(/there\)$"):
        pinned(found, B, "spec.x")

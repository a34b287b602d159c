"""Uncompressed tar shards: members are found by offset, and nothing is extracted."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from mm_config.schema import UserError
from mm_data.bad import BadClip
from mm_data.index.listed import Declared, LeftOut, Listed
from mm_data.index.sources.opening import Reading, open_source
from mm_data.media import open_media


def shard(path: Path, *members: tuple[str, bytes | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def read(path: Path, **options: str) -> list[Listed | LeftOut]:
    return list(open_source(str(path), Reading(**options)).listed)  # pyright: ignore[reportArgumentType]


def mistakes(path: Path) -> list[str]:
    with pytest.raises(UserError) as found:
        read(path)
    return [str(one) for one in found.value.problems]


def held(one: Listed) -> bytes:
    """The bytes of a clip where its shard is opened as any file."""
    assert one.part is not None
    offset, length = one.part
    return one.path.read_bytes()[offset : offset + length]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_are_members_of_one_name(form: int, tmp_path: Path) -> None:
    long = "d" * 60 + "/" + "n" * 60
    tall = {"text": "from json", "fps": 24, "num_frames": 33, "frame_idx": "0:17", "url": "http://x"}
    first = shard(
        tmp_path / "0.tar",
        special("folder", tarfile.DIRTYPE),
        ("folder/1.mp4", b"one"),
        ("folder/1.txt", b"\xef\xbb\xbffirst\n"),
        ("2.json", json.dumps(tall).encode()),
        ("2.MP4", b"two!"),
        (f"{long}.jpg", b"three"),
        (f"{long}.txt", b"third"),
        form=form,
    )
    shard(tmp_path / "1.tar", ("4.seg.webm", b"4"), ("4.txt", b"fourth"), form=form)
    found = read(tmp_path)
    root = tmp_path.resolve()
    assert all(isinstance(one, Listed) for one in found)
    clips = [one for one in found if isinstance(one, Listed)]
    assert [one.name for one in clips] == [
        "0.tar/folder/1.mp4",
        "0.tar/2.MP4",
        f"0.tar/{long}.jpg",
        "1.tar/4.seg.webm",
    ]
    assert [held(one) for one in clips] == [b"one", b"two!", b"three", b"4"]
    assert [one.captions for one in clips] == [("first",), ("from json",), ("third",), ("fourth",)]
    assert clips[1].cut == (0, 17) and clips[1].declared == Declared(num_frames=33, fps=24.0)
    assert {one.place for one in clips} == {f"{root}/0.tar", f"{root}/1.tar"}
    assert read(first) == found[:3]
    with open_media(clips[1].path, clips[1].part) as file:
        assert (file.read(), file.seek(-3, io.SEEK_END), file.read(2), file.tell()) == (b"two!", 1, b"wo", 3)
    with pytest.raises(BadClip, match="the shard is shorter than it was"):
        open_media(clips[1].path, (first.stat().st_size - 3, 4))


def test_members_that_are_no_clips_are_told(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        special("1.mp4", tarfile.SYMTYPE, "/etc/passwd"),
        special("2.mp4", tarfile.LNKTYPE, "../x"),
        special("3.mp4", tarfile.CHRTYPE),
        special("4.mp4", tarfile.FIFOTYPE),
        ("5.mp4", b"5"),
        ("6.txt", b"alone"),
        ("7.mp4", b"7"),
        ("7.webm", b"7"),
        ("7.txt", b"seven"),
        ("../../8.mp4", b"eight"),
        ("../../8.txt", b"never extracted"),
    )
    reasons = [(one.name, one.reason) for one in read(path) if isinstance(one, LeftOut)]
    irregular = "a member that is no regular file"
    assert reasons == [
        *((f"a.tar/{number}.mp4", irregular) for number in (1, 2, 3, 4)),
        ("a.tar/5.mp4", "it has no caption"),
        ("a.tar/6.txt", "its sample has no clip"),
        ("a.tar/7.mp4", "its sample has several clips: mp4, webm; name one by --path-column"),
    ]
    (named,) = [one for one in read(path, path_column="webm") if isinstance(one, Listed)]
    assert (named.name, held(named)) == ("a.tar/7.webm", b"7")
    (inside,) = [one for one in read(path) if isinstance(one, Listed)]
    assert held(inside) == b"eight" and sorted(one.name for one in tmp_path.iterdir()) == ["a.tar"]


def test_captions_are_found_or_named(tmp_path: Path) -> None:
    both = json.dumps({"caption": "long", "text": "short"}).encode()
    path = shard(tmp_path / "a.tar", ("1.mp4", b"1"), ("1.json", both))
    place = f"{tmp_path.resolve()}/a.tar/1"
    assert mistakes(path) == [
        f"{place}: caption and text could both be meant; name the key by --caption-column"
    ]
    (one,) = read(path, caption_column="text")
    assert isinstance(one, Listed) and one.captions == ("short",)
    shard(path, ("1.mp4", b"1"), ("1.json", b"[1]"), ("2.mp4", b"2"), ("2.txt", b"\xff"), ("3.json", b"{"))
    assert mistakes(path) == [
        f"{place}: json must hold an object",
        f"{place[:-1]}2: txt is not UTF-8",
    ]


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    good = shard(
        tmp_path / "good.tar", ("1.mp4", b"1" * 600), ("1.txt", b"x"), ("2.mp4", b"2"), ("2.txt", b"y")
    )
    content = good.read_bytes()
    where = f"{tmp_path.resolve()}"
    for name, damaged, told in (
        (
            "gz",
            gzip.compress(content),
            "is compressed; clips are read where they lie, so shards are plain tar",
        ),
        ("cut", content[:900], "is cut off in member 1, 1.mp4"),
        ("end", content[: 512 * 5], "is cut off behind member 2"),
        ("flip", content[: 512 * 3] + b"?" * 512 + content[512 * 4 :], "is damaged behind member 1"),
        ("empty", b"", "empty file"),
    ):
        (path := tmp_path / f"{name}.tar").write_bytes(damaged)
        assert mistakes(path) == [f"{where}/{name}.tar: {told}"]


def header(name: str, size: bytes, kind: bytes) -> bytes:
    """A member's header with whatever it claims of its size."""
    made = bytearray(512)
    made[: len(name)] = name.encode()
    made[100:136] = b"0000644\0" + b"0000000\0" * 2 + size
    made[148:157] = b" " * 8 + kind
    made[257:265] = b"ustar\x0000"
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@pytest.mark.parametrize(
    "content",
    [
        header("a", b"\x80" + b"\xff" * 11, b"L") + bytes(512),
        header("a", b"%011o\0" % 40, b"x") + (b"9" * 30 + b" x=1\n").ljust(512, b"\0"),
        (header("a", b"%011o\0" % 7, b"x") + b"7 x=ab\n".ljust(512, b"\0")) * 2_000,
    ],
    ids=["a size beyond 64 bits", "a length beyond 64 bits", "thousands of headers for one member"],
)
def test_headers_that_claim_the_impossible_are_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    (line,) = mistakes(tmp_path / "a.tar")
    assert "a.tar: has a header that can't be read" in line

"""Files that are damaged, no videos, or not allowed are bad clips, whatever the reader makes of them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mm_data import BadClip, Record
from tests.mm_data.conftest import INSTALLED
from tests.mm_data.damages import too_large
from tests.mm_data.streams import load_record


def damage(path: Path, how: str) -> Path:
    content = bytearray(path.read_bytes())
    if how == "zero length":
        content = bytearray()
    elif how == "text":
        content = bytearray(b"This is a note, not a video.\n" * 40)
    elif how == "truncated":
        content = content[: len(content) // 2]
    elif how == "bit flips":
        start, end = content.index(b"mdat") + 800, content.index(b"moov")
        for at in np.random.default_rng(0).integers(start, end, 60):
            content[at] ^= 0xFF
    elif how == "playlist":
        content = bytearray(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("reader", INSTALLED)
@pytest.mark.parametrize("how", ["zero length", "text", "truncated", "bit flips", "playlist"])
def test_damaged_files_are_bad_clips(tmp_path, coded, data_spec, how, reader):
    path = damage(coded.write(tmp_path / "a.mp4"), how)
    with pytest.raises(BadClip):
        load_record(Record(path, ""), data_spec(reader=reader, num_frames=40))


def test_single_flipped_bits_are_noticed(tmp_path, coded, data_spec):
    """A decoder conceals most of them without an error; the clip is bad all the same."""
    path = coded.write(tmp_path / "a.mp4")
    content = path.read_bytes()
    start, end = content.index(b"mdat") + 800, content.index(b"moov")
    reasons = []
    for at in np.random.default_rng(0).integers(start, end, 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            load_record(Record(path, ""), data_spec(num_frames=40))
        except BadClip as error:
            reasons.append(error.reason)
    assert reasons.count("a damaged frame") >= 30


def test_files_that_are_not_there_or_not_files_are_bad_clips(tmp_path, data_spec):
    with pytest.raises(BadClip, match="open: no such file"):
        load_record(Record(tmp_path / "none.mp4", ""), data_spec())
    with pytest.raises(BadClip, match="open: it is a folder, no file"):
        load_record(Record(tmp_path, ""), data_spec())
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadClip, match="open: it is a pipe, no file"):
        load_record(Record(tmp_path / "pipe.mp4", ""), data_spec())


def test_pictures_too_large_to_hold_are_bad_clips(tmp_path, data_spec):
    path = too_large(tmp_path / "bomb.mp4")
    assert path.stat().st_size < 10**6
    with pytest.raises(BadClip, match="8160x8160 pixels are more than"):
        load_record(Record(path, ""), data_spec(num_frames=1))


def test_a_codec_that_is_not_allowed_is_a_bad_clip(tmp_path, coded, data_spec):
    other = coded.write(tmp_path / "a.mkv", codec="mjpeg", options={"strict": "unofficial"})
    with pytest.raises(BadClip):
        load_record(Record(other, ""), data_spec())


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [
        ("avi", "mpeg4", "an AVI or another RIFF"),
        ("asf", "wmv2", r"an ASF \(WMV\)"),
        ("flv", "flv", "an FLV"),
    ],
)
def test_a_container_that_is_not_allowed_is_named(tmp_path, coded, data_spec, container, codec, name):
    path = tmp_path / "a.mp4"
    coded.write(path, codec=codec, container=container, options={})
    with pytest.raises(
        BadClip, match=f"the file is {name}; mp4, mov, mkv, webm and MPEG transport streams are read, and PNG"
    ):
        load_record(Record(path, ""), data_spec())


@pytest.mark.parametrize(("brand", "name"), [(b"heic", "a HEIC"), (b"mif1", "a HEIF"), (b"avif", "an AVIF")])
def test_pictures_in_boxes_are_named_and_not_taken_for_videos(tmp_path, coded, data_spec, brand, name):
    path = coded.write(tmp_path / "a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[:8] + brand + content[12:])
    with pytest.raises(BadClip, match=f"the file is {name}; mp4, mov"):
        load_record(Record(path, ""), data_spec())


def test_an_empty_file_is_called_empty(tmp_path, data_spec):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(BadClip, match="the file is empty"):
        load_record(Record(tmp_path / "a.mp4", ""), data_spec())


def test_every_cut_of_a_clip_is_a_bad_clip_or_read_right(tmp_path, coded, data_spec):
    """Where the codec is not known yet, PyAV gives a stream without a codec."""
    content = coded.write(tmp_path / "a.mp4", range(9), options={"x264-params": "keyint=1"}).read_bytes()
    reasons = set()
    for size in range(content.index(b"moov"), len(content), 3):
        (tmp_path / "a.mp4").write_bytes(content[:size])
        try:
            frames = load_record(Record(tmp_path / "a.mp4", ""), data_spec()).frames.numpy()
            assert [coded.number(frame) for frame in frames] == list(range(9))
        except BadClip as bad:
            reasons.add(bad.reason)
    assert "FFmpeg doesn't know its codec" in reasons


RAISED = [
    *(
        kind("x")
        for kind in (AttributeError, MemoryError, ValueError, EOFError, OverflowError, StopIteration)
    ),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    RecursionError("x"),
]


@pytest.mark.parametrize("error", RAISED)
def test_whatever_a_decoder_raises_makes_a_bad_clip(tmp_path, coded, data_spec, monkeypatch, error):
    def read(*_, **__):
        raise error

    record = Record(coded.write(tmp_path / "a.mp4"), "")
    monkeypatch.setattr("mm_data.video.readers.read_frames", read)
    with pytest.raises(BadClip, match=f"decode: {type(error).__name__}: "):
        load_record(record, data_spec())


@pytest.mark.parametrize(
    "frames", [np.zeros((8, 64, 128, 3), np.uint8), np.zeros((9, 64, 128, 3), np.float32)]
)
def test_other_frames_than_were_asked_for_make_a_bad_clip(tmp_path, coded, data_spec, monkeypatch, frames):
    record = Record(coded.write(tmp_path / "a.mp4"), "")
    monkeypatch.setattr("mm_data.video.readers.read_frames", lambda *_, **__: frames)
    with pytest.raises(BadClip, match="the reader returned "):
        load_record(record, data_spec())


@pytest.mark.parametrize("name", [b"stts", b"stsz"])
def test_more_frames_than_any_file_has_make_a_bad_clip(tmp_path, coded, data_spec, name):
    path = coded.write(tmp_path / "a.mp4")
    content = path.read_bytes()
    at = content.index(name) + 12
    path.write_bytes(content[:at] + struct.pack(">I", 3_000_000) + content[at + 4 :])
    with pytest.raises(BadClip):
        load_record(Record(path, ""), data_spec())


def test_a_file_of_more_bytes_than_are_read_is_a_bad_clip(tmp_path, coded, data_spec):
    path = coded.write(tmp_path / "a.mp4")
    os.truncate(path, 100 << 30)  # Of holes, which take no room.
    with pytest.raises(BadClip, match="open: 107374182400 bytes are more than"):
        load_record(Record(path, ""), data_spec())

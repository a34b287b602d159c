"""Frames come back for exactly the timestamps that were asked for, or the clip is bad."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mm_data import BadClip, Record
from mm_data.video.index import index_video, open_video
from mm_data.video.reading import read_frames
from mm_data.video.reading_decord import read_frames_decord
from tests.mm_data.conftest import INSTALLED
from tests.mm_data.streams import load_record

OFFSET = range(34, 74)
UNEVEN = np.cumsum(np.random.default_rng(1).integers(1, 5, 40)).tolist()
OPEN_GOP = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}

KINDS = {
    "closed GOPs with B-frames": ("a.mp4", {}),
    "no B-frames": ("a.mp4", {"options": {"x264-params": "keyint=8:bframes=0"}}),
    "one keyframe": ("a.mp4", {"options": {}}),
    "open GOPs": ("a.mp4", {"options": OPEN_GOP}),
    "x265 defaults": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:log-level=none"}}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "8"}}),
    "later start": ("a.mp4", {"times": OFFSET}),
    "later start, Matroska": ("a.mkv", {"times": OFFSET}),
    "later start, transport stream": ("a.ts", {"times": OFFSET, "container": "mpegts"}),
    "open GOPs, transport stream": ("a.ts", {"times": OFFSET, "container": "mpegts", "options": OPEN_GOP}),
    "variable rate": ("a.mp4", {"times": UNEVEN}),
    "AV1": ("a.mp4", {"codec": "libsvtav1", "options": {"g": "8", "preset": "12", "svtav1-params": "rc=0"}}),
}
SAFE_FOR_DECORD = (
    "closed GOPs with B-frames",
    "no B-frames",
    "one keyframe",
    "VP9",
    "later start",
    "later start, Matroska",
    "variable rate",
)


@pytest.fixture
def clip(request, tmp_path, coded) -> Path:
    name, arguments = KINDS[request.param]
    return coded.write(tmp_path / name, **arguments)


@pytest.mark.parametrize("clip", KINDS, indirect=True)
def test_every_frame_alone_and_in_sets_is_the_asked_one(clip, coded):
    rng = np.random.default_rng(0)
    sets = [[number] for number in range(40)] + [sorted(rng.integers(0, 40, 8)) for _ in range(8)]
    with open_video(clip) as file:
        index = index_video(file)
        assert len(index.pts) == 40
        for asked in sets:
            frames = read_frames(file, index, [index.pts[n] for n in asked], height=64, width=128)
            assert [coded.number(frame) for frame in frames] == list(asked)


@pytest.mark.parametrize("open_gop", [False, True])
def test_frames_behind_an_edit_list_are_the_asked_ones(tmp_path, coded, open_gop):
    source = coded.write(tmp_path / "whole.mp4", options=OPEN_GOP if open_gop else None)
    cut = coded.cut(source, tmp_path / "cut.mp4", keyframe=16, first=20)
    with open_video(cut) as file:
        index = index_video(file)
        assert len(index.pts) == 20
        for number, pts in enumerate(index.pts):
            frame = read_frames(file, index, [pts], height=64, width=128)[0]
            assert coded.number(frame) == 20 + number


@pytest.mark.parametrize("clip", SAFE_FOR_DECORD, indirect=True)
def test_decord_returns_the_same_frames(clip):
    with open_video(clip) as file:
        index = index_video(file)
        ours = read_frames(file, index, index.pts, height=64, width=128)
        theirs = read_frames_decord(file, index, index.pts, height=64, width=128)
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("clip", sorted(KINDS.keys() - SAFE_FOR_DECORD), indirect=True)
def test_decord_is_refused_where_it_returns_wrong_frames(clip):
    with open_video(clip) as file:
        index = index_video(file)
        with pytest.raises(BadClip, match="use the reader pyav"):
            read_frames_decord(file, index, index.pts, height=64, width=128)


def test_decord_is_refused_on_an_edit_list(tmp_path, coded):
    cut = coded.cut(coded.write(tmp_path / "whole.mp4"), tmp_path / "cut.mp4", keyframe=16, first=20)
    with open_video(cut) as file:
        index = index_video(file)
        with pytest.raises(BadClip, match="edit list"):
            read_frames_decord(file, index, index.pts, height=64, width=128)


def test_both_readers_serve_load_clip(tmp_path, coded, data_spec):
    record = Record(coded.write(tmp_path / "a.mp4"), "numbers")
    clips = [load_record(record, data_spec(reader=reader)) for reader in INSTALLED]
    for clip in clips:
        assert [coded.number(frame.numpy()) for frame in clip.frames] == list(range(9))
        assert clip.caption == "numbers"


def test_decord_that_is_not_installed_names_the_command():
    program = """
import sys
sys.modules["decord"] = None
from mm_config.schema.errors import UserError
from mm_config.specs.data import DataSpec, Reader
from mm_config.specs.datasets import ManifestSpec
from mm_data import Dataset, Record, stream
from pathlib import Path
spec = DataSpec(dataset=ManifestSpec(name="x"), batch_size=1, reader=Reader.DECORD)
try:
    stream(spec, Dataset(Path("."), (Record(Path("a"), ""),), ""), seed=0, end_step=1)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "mm-data[decord]"' in done.stdout


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (24.0, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (8.0, [0, 3, 6, 9, 12, 15, 18, 21, 24]),
        (16.0, [0, 1, 3, 4, 6, 7, 9, 10, 12]),
        (48.0, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_are_sampled_at_the_asked_rate(tmp_path, coded, data_spec, name, fps, expected):
    record = Record(coded.write(tmp_path / name, OFFSET), "")
    frames = load_record(record, data_spec(fps=fps)).frames.numpy()
    assert [coded.number(frame) for frame in frames] == expected


def test_a_variable_rate_is_sampled_evenly_in_time(tmp_path, coded, data_spec):
    times = [0, 1, 2, 3, 12, 24, 25, 48]
    record = Record(coded.write(tmp_path / "a.mp4", times), "")
    frames = load_record(record, data_spec(fps=2.0, num_frames=5)).frames.numpy()
    assert [times[coded.number(frame)] for frame in frames] == [0, 12, 24, 25, 48]


def test_the_last_frame_counts_until_it_ends(tmp_path, coded, data_spec):
    record = Record(coded.write(tmp_path / "a.mp4"), "")
    frames = load_record(record, data_spec(num_frames=41)).frames.numpy()
    assert [coded.number(frame) for frame in frames] == [*range(40), 39]
    with pytest.raises(BadClip, match=r"1\.667 s are too short for 42 frames at 24 frames/s"):
        load_record(record, data_spec(num_frames=42))


def test_the_slowest_frame_rates_are_not_rounded_to_none(tmp_path, coded, data_spec):
    record = Record(coded.write(tmp_path / "a.mp4"), "")
    frames = load_record(record, data_spec(num_frames=1, fps=1e-6)).frames.numpy()
    assert [coded.number(frame) for frame in frames] == [0]
    with pytest.raises(BadClip, match="too short for 2 frames"):
        load_record(record, data_spec(num_frames=2, fps=1e-6))


@pytest.mark.parametrize("reader", INSTALLED)
def test_resizing_keeps_what_is_shown(tmp_path, coded, data_spec, reader):
    record = Record(coded.write(tmp_path / "a.mp4"), "")
    small = load_record(record, data_spec(height=32, width=48, reader=reader)).frames.numpy()
    assert small.shape == (9, 32, 48, 3)
    full = load_record(record, data_spec()).frames.numpy()[:, :32]
    column = (np.arange(48) * 128 + 64) // 48
    # Away from the edges of the blocks, which resizing blurs.
    flat = (column % 16 >= 4) & (column % 16 < 12)
    assert np.abs(small[:, 4:12, flat].astype(int) - full[:, 8:24:2, column[flat]]).max() < 25


MATRICES = {90: (0, 1, 0, -1, 0, 0), 180: (-1, 0, 0, 0, -1, 0), 270: (0, -1, 0, 1, 0, 0)}


@pytest.mark.parametrize("degrees", MATRICES)
def test_rotated_clips_are_turned_upright(tmp_path, coded, data_spec, degrees):
    plain = coded.write(tmp_path / "plain.mp4")
    height, width = (128, 64) if degrees != 180 else (64, 128)
    matrix = (*(entry << 16 for entry in MATRICES[degrees]), 0, 0, 1 << 30)
    content = bytearray(plain.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", *matrix)
    (tmp_path / "turned.mp4").write_bytes(content)
    turned = load_record(Record(tmp_path / "turned.mp4", ""), data_spec(height=height, width=width)).frames
    stored = load_record(Record(plain, ""), data_spec()).frames.numpy()
    np.testing.assert_array_equal(turned.numpy(), np.rot90(stored, -degrees // 90, axes=(1, 2)))

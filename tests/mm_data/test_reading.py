"""Clips are sampled, resized and read as their spec says, by each reader that is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import numpy as np
import pytest

from mm_data import BadClip, Record
from tests.mm_data.conftest import INSTALLED
from tests.mm_data.streams import load_record

OFFSET = range(34, 74)


def test_both_readers_serve_load_clip(tmp_path, coded, data_spec):
    record = Record(coded.write(tmp_path / "a.mp4"), "numbers")
    clips = [load_record(record, data_spec(reader=reader)) for reader in INSTALLED]
    for clip in clips:
        assert [coded.number(frame.numpy()) for frame in clip.frames] == list(range(9))
        assert clip.caption == "numbers"


def test_decord_that_is_not_installed_names_the_command():
    program = """
import sys
import tarfile
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


@pytest.mark.parametrize("isolated", [False, True])
def test_a_clip_in_a_shard_is_read_where_it_lies(tmp_path, coded, data_spec, isolated):
    for number, times in enumerate((range(40), range(0, 80, 2))):
        coded.write(tmp_path / f"{number}.mp4", times)
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for number in range(2):
            shard.add(tmp_path / f"{number}.mp4", f"{number}.mp4")
    with tarfile.open(tmp_path / "shard.tar") as shard:
        parts = [(member.offset_data, member.size) for member in shard]
    for number, part in enumerate(parts):
        record = Record(tmp_path / "shard.tar", "", part=part)
        frames = load_record(record, data_spec(isolated=isolated)).frames.numpy()
        assert [coded.number(frame) for frame in frames] == [k // (1 + number) for k in range(9)]

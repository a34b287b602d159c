"""mp4 files: what is written comes back, complete or not at all."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from av.error import FFmpegError

from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ShapesSpec
from mm_data import Record, read_comment, write_mp4
from mm_data.shapes.render import render
from tests.mm_data.streams import load_record


def smooth_frames() -> np.ndarray:
    y, x = np.mgrid[:64, :128]
    red = np.stack([(x + 4 * t) % 256 for t in range(9)])
    green = np.broadcast_to(4 * y, red.shape)
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_frames_survive_the_codec(tmp_path, data_spec, kind):
    frames = smooth_frames()
    write_mp4(tmp_path / "a.mp4", kind(frames), fps=24, crf=1)
    back = load_record(Record(tmp_path / "a.mp4", ""), data_spec()).frames.numpy()
    assert np.abs(back.astype(int) - frames).mean() < 3


def test_frames_that_come_in_parts_make_the_same_file(tmp_path):
    frames = torch.from_numpy(smooth_frames())
    write_mp4(tmp_path / "whole.mp4", frames, fps=24, comment="x")
    write_mp4(tmp_path / "parts.mp4", (part for part in frames.split([1, 4, 4])), fps=24, comment="x")
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_rate_format_and_comment_are_stored(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, smooth_frames(), fps=23.976, comment="mm 1f3a äöü")
    assert read_comment(path) == "mm 1f3a äöü"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate or 0) == pytest.approx(23.976, abs=1e-3)
        assert stream.frames == 9


def test_a_file_without_a_comment_has_an_empty_one(tmp_path):
    write_mp4(tmp_path / "a.mp4", smooth_frames(), fps=8)
    assert read_comment(tmp_path / "a.mp4") == ""


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(UserError, match="even sizes, got 127x64"):
        write_mp4(tmp_path / "a.mp4", smooth_frames()[:, :, :127], fps=8)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, smooth_frames(), fps=8, comment="old")
    with pytest.raises(FFmpegError):
        write_mp4(path, smooth_frames(), fps=8, comment="new", preset="no such preset")
    assert read_comment(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_frames_give_equal_bytes(tmp_path):
    """The caption is one whose bytes differed in every second file with x264's widest instructions."""
    frames = render(ShapesSpec(), "a red circle moving left", 0)
    for number in range(40):
        write_mp4(tmp_path / f"{number}.mp4", frames, 8)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1

"""Which frames of a clip are taken, by numbers written by hand and by plain rules."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mm_config.specs.data import BucketSpec, ClipStart
from mm_data import BadClip
from mm_data.transforms.grid import Grid
from mm_data.transforms.sampling import frames_after_sampling, sampled
from mm_data.video.index import VideoIndex
from mm_data.video.shown import Shown


def even(num_frames: int, fps: int | Fraction, first: int = 0) -> VideoIndex:
    """Frames at an even rate, each of one unit; the file's first frame may be at any time."""
    pts = tuple(range(first, first + num_frames))
    return VideoIndex(
        pts, (first,), 1 / Fraction(fps), num_frames / Fraction(fps), "mp4", "h264", False, False, Shown(2, 2)
    )


def test_a_clip_of_two_seconds_gives_17_frames_at_8_and_one_of_five_81_at_16(data_spec):
    two = sampled(data_spec(fps=8.0), even(48, 24), None, 17, "")
    assert two == (*range(0, 48, 3), 47)
    five = sampled(data_spec(fps=16.0), even(120, 24), None, 81, "")
    # Half-way between two frames, the earlier: 1.5 frames are 1.
    assert five[:5] == (0, 1, 3, 4, 6) and five[-2:] == (118, 119)
    with pytest.raises(BadClip, match=r"2\.000 s are too short for 18 frames at 8 frames/s, .* 2\.125 s"):
        sampled(data_spec(fps=8.0), even(48, 24), None, 18, "")


def test_a_cut_is_sampled_as_if_it_were_a_file(data_spec):
    whole = even(100, 24, first=7)
    assert sampled(data_spec(fps=8.0), whole, (30, 46), 6, "") == (37, 40, 43, 46, 49, 52)
    # The last one is asked for at the end of the cut, and is none of the next.
    assert sampled(data_spec(fps=8.0), whole, (30, 48), 7, "") == (37, 40, 43, 46, 49, 52, 54)
    with pytest.raises(BadClip, match=r"0\.667 s are too short for 7 frames"):
        sampled(data_spec(fps=8.0), whole, (30, 46), 7, "")
    assert sampled(data_spec(fps=8.0), whole, (76, 100), 9, "")[-1] == 106
    with pytest.raises(BadClip, match="frames 90 to 101 are cut out of 100"):
        sampled(data_spec(), whole, (90, 101), 1, "")


def test_a_variable_rate_within_a_cut_goes_by_time(data_spec):
    pts = (0, 10, 20, 50, 100, 110, 120)
    index = VideoIndex(
        pts, (0,), Fraction(1, 100), Fraction(130, 100), "matroska", "h264", False, False, Shown(2, 2)
    )
    # 0.5, 0.75 and 1.0 s lie on or between frames at 0.5 and 1.0 s; the cut ends at 1.1 s.
    assert sampled(data_spec(fps=4.0), index, (3, 5), 3, "") == (50, 50, 100)
    with pytest.raises(BadClip, match=r"0\.600 s are too short"):
        sampled(data_spec(fps=4.0), index, (3, 5), 4, "")


def test_the_start_is_head_middle_or_random_by_the_draw_alone(data_spec):
    index = even(40, 24)

    def first(start: ClipStart, draw: str = "") -> int:
        wanted = sampled(data_spec(start=start, frame_interval=2), index, None, 9, draw)
        assert np.diff(wanted).tolist() == [2] * 8
        return wanted[0]

    assert first(ClipStart.HEAD) == 0
    assert first(ClipStart.MIDDLE) == 10
    drawn = [first(ClipStart.RANDOM, f"7/3/{epoch}") for epoch in range(600)]
    assert drawn == [first(ClipStart.RANDOM, f"7/3/{epoch}") for epoch in range(600)]
    counts = np.bincount(drawn, minlength=24)[::2]
    # 12 starts are equally likely: 50 each, by a standard deviation of 7.
    assert len(counts) == 12 and counts.min() > 22 and counts.max() < 78


def test_every_third_frame_is_taken_whatever_the_rate(data_spec):
    data = data_spec(frame_interval=3)
    assert sampled(data, even(10, 24), None, 4, "") == (0, 3, 6, 9)
    assert sampled(data, even(12, 60), (1, 12), 4, "") == (1, 4, 7, 10)
    with pytest.raises(BadClip, match="9 frames are too few for 4"):
        sampled(data, even(9, 24), None, 4, "")


def test_long_clips_are_played_faster_up_to_the_factor(data_spec):
    # As Open-Sora-Plan: int(n / factor) frames evenly from the first to the last, then the window.
    index = even(240, 24)
    data = data_spec(speed_factor=3.5)
    there = 241
    expected = np.linspace(0, there - 1, int(there / 3.5), dtype=int)[:49]
    assert sampled(data, index, None, 49, "") == tuple(np.minimum(expected, 239))
    some = sampled(data_spec(speed_factor=10.0), index, None, 61, "")
    assert some == tuple(np.minimum(np.linspace(0, 240, 61, dtype=int), 239))
    assert sampled(data, index, None, 241, "") == (*range(240), 239)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0, 0, 81, 81]),
        ({"min_num_frames": 5, "drop_short_share": 0.0}, [0, 77, 81, 81]),
        ({"min_num_frames": 1, "drop_short_share": 0.0}, [1, 77, 81, 81]),
        ({"buckets": (BucketSpec(num_frames=1, height=64, width=64),)}, [1, 1, 1, 1]),
        ({"buckets": (BucketSpec(num_frames=121, height=64, width=64),)}, [1, 80, 81, 121]),
        ({"frame_interval": 2, "fps": 16.0}, [0, 0, 0, 81]),
    ],
)
def test_how_many_frames_clips_give(data_spec, changes, expected):
    data = data_spec(num_frames=81, **({"fps": 16.0} | changes))
    # An image, 4.96 s and 5 s at 24 frames/s, and 10 s at 25.
    found = frames_after_sampling(data, np.array([1, 119, 120, 250]), np.array([0.0, 24, 24, 25]))
    assert found.tolist() == expected


def test_what_was_counted_before_can_be_sampled(data_spec):
    """Every number of frames at awkward rates: one frame more than was counted is refused."""
    for fps in (Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50)):
        for rate in (8.0, 16.0, 23.976, 24.0):
            data = data_spec(fps=rate, num_frames=500, min_num_frames=1, drop_short_share=0.0)
            lengths = np.arange(1, 120)
            counted = frames_after_sampling(data, lengths, np.full(119, float(fps)), Grid(frames=1))
            for length, count in zip(lengths.tolist(), counted.tolist(), strict=True):
                assert len(sampled(data, even(length, fps), None, count, "")) == count
                with pytest.raises(BadClip):
                    sampled(data, even(length, fps), None, count + 1, "")

"""Which frames of a clip are taken: by time at a rate, or every n-th."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm_config.specs import ClipStart, DataSpec
from mm_data.bad import BadClip
from mm_data.transforms.draws import below
from mm_data.transforms.grid import WAN, Grid
from mm_data.video.index import VideoIndex

ROUNDING = Fraction(1, 1000)
"""Seconds by which containers round timestamps (Matroska): a clip that ends so much earlier is as long."""


def sampled(
    data: DataSpec, index: VideoIndex, cut: tuple[int, int] | None, num_frames: int, draw: str
) -> tuple[int, ...]:
    """The timestamps of the frames that show a clip at the asked times.

    Frame `k` is asked for at `k / data.fps` seconds after the first frame of the cut, the cut's end included,
    where its last frame is still shown. Time goes by timestamps alone, so a variable frame rate is sampled
    evenly; where `fps` is above the clip's own rate, frames repeat.

    Args:
        data: Rate or interval, start and speed.
        index: The file's frames.
        cut: The first frame and the one after the last, counted as they are shown; None takes all.
        num_frames: Those of the batch.
        draw: What a random start follows from.

    Returns:
        `num_frames` timestamps in units of `index.time_base`, ascending.

    Raises:
        BadClip: The clip is too short, or the cut is not in the file.
    """
    pts, seconds = _window(index, cut)
    there = _available(data, len(pts), seconds)
    if there < num_frames:
        raise BadClip("sample", _too_short(data, len(pts), seconds, num_frames))
    places = _places(data, there, num_frames, draw)
    if data.frame_interval is not None:
        return tuple(pts[place * data.frame_interval] for place in places)
    step = 1 / (_rate(data.fps) * index.time_base)
    return tuple(_nearest(pts, pts[0] + place * step) for place in places)


def frames_after_sampling(
    data: DataSpec, num_frames: NDArray[Any], fps: NDArray[Any], grid: Grid = WAN
) -> NDArray[np.int64]:
    """How many frames each clip gives, of what an index measured.

    At most the data's num_frames, or those of the longest bucket. Without buckets, a clip with less gives
    none, or with `data.min_num_frames` as many as the network takes of that number and more. With buckets it
    gives all that it has, of which the bucket takes a part.

    Args:
        data: Rate or interval, and numbers of frames.
        num_frames: `[N]`, of each clip's cut.
        fps: `[N]`, frames by seconds; 0 of images.
        grid: The numbers of frames that the network takes.
    """
    if data.frame_interval is not None:
        there = -(-num_frames.astype(np.int64) // data.frame_interval)
    else:
        seconds = np.divide(num_frames, fps, out=np.zeros(len(num_frames)), where=fps > 0)
        there = np.floor((seconds + float(ROUNDING)) * float(_rate(data.fps))).astype(np.int64) + 1
    if data.buckets:
        return np.minimum(there, max(bucket.num_frames for bucket in data.buckets))
    if data.min_num_frames is None:
        return np.where(there < data.num_frames, 0, data.num_frames)
    fit = np.minimum((there - grid.first) // grid.frames * grid.frames + grid.first, data.num_frames)
    return np.where(fit < data.min_num_frames, 0, fit)


def _window(index: VideoIndex, cut: tuple[int, int] | None) -> tuple[tuple[int, ...], Fraction]:
    """The timestamps in a cut, and the seconds from its first frame's start to its last frame's end.

    Raises:
        BadClip: The cut is not in the file.
    """
    if cut is None:
        return index.pts, index.seconds
    first, end = cut
    if not 0 <= first < end <= len(index.pts):
        raise BadClip("sample", f"frames {first} to {end} are cut out of {len(index.pts)}")
    if end < len(index.pts):
        return index.pts[first:end], (index.pts[end] - index.pts[first]) * index.time_base
    return index.pts[first:], index.seconds - (index.pts[first] - index.pts[0]) * index.time_base


def _available(data: DataSpec, num_frames: int, seconds: Fraction) -> int:
    """How many frames can be asked for."""
    if data.frame_interval is not None:
        return -(-num_frames // data.frame_interval)
    return int((seconds + ROUNDING) * _rate(data.fps)) + 1


def _places(data: DataSpec, there: int, num_frames: int, draw: str) -> Sequence[int]:
    """Which of the frames that can be asked for are taken."""
    places: Sequence[int] = range(there)
    if data.speed_factor > 1 and there > num_frames:
        # As Open-Sora-Plan and MindSpeed-MM play long clips faster.
        factor = min(data.speed_factor, there / num_frames)
        places = np.linspace(0, there - 1, max(int(there / factor), num_frames), dtype=int).tolist()
    spare = len(places) - num_frames
    if data.start is ClipStart.RANDOM:
        first = below(draw, "start", spare + 1)
    else:
        first = spare // 2 if data.start is ClipStart.MIDDLE else 0
    return places[first : first + num_frames]


def _rate(fps: float) -> Fraction:
    """Rates such as 29.97 mean a fraction over 1001; the slowest have none that is not 0."""
    return Fraction(fps).limit_denominator(1001) or Fraction(fps)


def _nearest(pts: tuple[int, ...], time: Fraction) -> int:
    after = bisect_left(pts, time)
    if after == 0:
        return pts[0]
    if after == len(pts):
        return pts[-1]
    # Half-way between two frames the earlier one is taken, and a little beyond: containers round timestamps
    # to their units (1 ms in Matroska), and the same frames must come from each of them.
    earlier, later = pts[after - 1], pts[after]
    return earlier if time - earlier <= Fraction(9, 16) * (later - earlier) else later


def _too_short(data: DataSpec, have: int, seconds: Fraction, num_frames: int) -> str:
    if data.frame_interval is not None:
        few = "1 frame is" if have == 1 else f"{have} frames are"
        return f"{few} too few for {num_frames}, each {data.frame_interval} on from the one before"
    last = (num_frames - 1) / data.fps
    return (
        f"{float(seconds):.3f} s are too short for {num_frames} frames at {data.fps:g} "
        f"frames/s, whose last is at {last:.3f} s"
    )

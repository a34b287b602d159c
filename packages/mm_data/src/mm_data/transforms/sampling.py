"""Which frames show a clip at another frame rate."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

from mm_data.video.index import VideoIndex


def nearest_frames(index: VideoIndex, num_frames: int, fps: float) -> tuple[int, ...] | None:
    """Timestamps of the frames nearest to `k / fps` seconds after the first frame.

    Works on timestamps alone, so a variable frame rate is sampled evenly in time; where `fps` is above the
    clip's own rate, frames repeat.

    Returns:
        `num_frames` timestamps in units of `index.time_base`, or None where the clip ends before the last.
    """
    # Rates such as 29.97 mean a fraction over 1001; the slowest have none that is not 0.
    rate = Fraction(fps).limit_denominator(1001) or Fraction(fps)
    step = 1 / (rate * index.time_base)
    if (num_frames - 1) * step * index.time_base >= index.seconds:
        return None
    return tuple(_nearest(index.pts, index.pts[0] + k * step) for k in range(num_frames))


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

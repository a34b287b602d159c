"""How a picture of a file is shown: turned, mirrored, with square pixels."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

import attrs
import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc

from mm_data.bad import BadClip
from mm_data.video.limits import MAX_PIXELS

HDR: Mapping[int, str] = {
    ColorTrc.SMPTE2084: "PQ (SMPTE ST 2084)",
    ColorTrc.ARIB_STD_B67: "HLG (ARIB STD-B67)",
}
"""Transfers that need tone mapping, which nobody here does."""
MATRICES = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
"""Those that swscale converts from, in the tables of H.273: RGB, BT.709, unspecified (taken for BT.601), FCC,
BT.470 BG and SMPTE 170M (which are BT.601), SMPTE 240M, BT.2020 with non-constant luminance."""
_TURNS = {(1, 0): 0, (0, -1): 1, (-1, 0): 2, (0, 1): 3}
"""Quarter turns by the signs of what the display matrix makes of a step to the right, `(x, y)`."""


@attrs.frozen
class Shown:
    """What becomes of a stored picture before it is seen."""

    height: int
    """Of a shown frame with square pixels, upright."""
    width: int
    """Of a shown frame with square pixels, upright."""
    turns: int = 0
    """Quarter turns counterclockwise, 0 to 3, after mirroring."""
    mirrored: bool = False
    """Whether the stored picture is mirrored left to right."""

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """A view of a stored picture `[height, width, 3]` as it is shown."""
        return np.rot90(pixels[:, ::-1] if self.mirrored else pixels, self.turns)


def shown_size(frame: VideoFrame, sample_aspect_ratio: Fraction | None) -> Shown:
    """How the pictures of a stream are shown, told from one of them.

    The width is what squares the pixels; the stored height is kept.

    Args:
        frame: A decoded picture, whose side data has the stream's display matrix.
        sample_aspect_ratio: A stored pixel's width by its height, `VideoStream.sample_aspect_ratio`; None or
            0 where nobody says so, which means square ones.

    Raises:
        BadClip: It is HDR, of a matrix that isn't read, to be turned by other than a multiple of 90 degrees,
            or too large once squared.
    """
    if (hdr := HDR.get(frame.color_trc)) is not None:
        raise BadClip("index", f"its colours are HDR, {hdr}, which isn't read; convert it to SDR")
    if frame.colorspace not in MATRICES:
        raise BadClip("index", f"the matrix of its colours, {frame.colorspace} of H.273, isn't read")
    turns, mirrored = _turns_of(frame)
    width = max(int(frame.width * (sample_aspect_ratio or 1) + Fraction(1, 2)), 1)
    if frame.height * width > MAX_PIXELS:
        raise BadClip("index", f"{width}x{frame.height} pixels as shown are more than {MAX_PIXELS}")
    height, width = (width, frame.height) if turns % 2 else (frame.height, width)
    return Shown(height, width, turns, mirrored)


def has_alpha(frame: VideoFrame) -> bool:
    """Whether a frame says how much of it covers what is behind."""
    return any(component.is_alpha for component in frame.format.components)


def _turns_of(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counterclockwise after mirroring left to right, and whether it is mirrored.

    FFmpeg's display matrix `a b u / c d v / x y w` shows the stored `(p, q)` at `(a p + c q, b p + d q)`, p
    to the right and q down (libavutil/display.h).
    """
    try:
        # PyAV types it as a dictionary of motion vectors alone.
        matrix = bytes(cast(Any, frame.side_data)[Type.DISPLAYMATRIX])
    except KeyError:
        return 0, False
    except ValueError as error:
        raise BadClip("index", f"PyAV can't tell how its pictures are turned: {error}") from error
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    turns = _TURNS.get((int(np.sign(a)), int(np.sign(b))))
    if turns is None or bool(c) == bool(d):
        raise BadClip("index", f"the picture is to be turned by {frame.rotation} degrees")
    return turns, mirrored

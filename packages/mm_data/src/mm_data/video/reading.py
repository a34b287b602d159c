"""Frames by timestamp with PyAV: a frame is returned only if its decoded timestamp is the asked one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame

from mm_data.bad import BadClip
from mm_data.video.index import VideoIndex, demuxer


def read_frames(
    file: BinaryIO,
    index: VideoIndex,
    wanted: Sequence[int],
    *,
    height: int | None,
    width: int | None,
    damaged: bool = False,
) -> np.ndarray:
    """Decodes the frames with the wanted timestamps.

    Decoding starts at the last keyframe not after the first wanted frame. Where a wanted frame doesn't come
    out, or comes out damaged, because it refers to frames before that keyframe (open GOPs), it starts one
    keyframe earlier, and at last at the start of the file.

    Args:
        file: An opened video file; it is used by this call alone.
        index: What `index_video` found in it.
        wanted: Timestamps in ascending order; they may repeat.
        height, width: Size of the returned frames; None keeps that of the file.
        damaged: Whether frames may be damaged, as long as they can be decoded.

    Returns:
        uint8 RGB `[len(wanted), height, width, 3]`.

    Raises:
        BadClip: A frame is damaged, or doesn't come out even from the start of the file.
    """
    assert set(wanted) <= set(index.pts)
    assert list(wanted) == sorted(wanted)
    found: dict[int, np.ndarray] = {}
    for start in starts(index, wanted[0]):
        try:
            found = _decode_from(file, start, frozenset(wanted), height, width, damaged)
        except BadClip:
            if start is None:
                raise
            continue
        if len(found) == len(set(wanted)):
            return np.stack([found[pts] for pts in wanted])
    missing = next(pts for pts in wanted if pts not in found)
    raise BadClip("decode", f"no frame has the timestamp {float(missing * index.time_base):.3f} s")


def starts(index: VideoIndex, first: int) -> tuple[int | None, ...]:
    """Keyframes to start from for a frame, the nearest first; None is the start of the file."""
    before = bisect_right(index.keyframes, first)
    nearest = tuple(reversed(index.keyframes[max(before - 2, 0) : before]))
    return (*(start for start in nearest if start != index.keyframes[0]), None)


def _decode_from(
    file: BinaryIO,
    start: int | None,
    wanted: frozenset[int],
    height: int | None,
    width: int | None,
    damaged: bool,
) -> dict[int, np.ndarray]:
    """The wanted frames that come out when decoding starts at a keyframe, or at the file's start."""
    found: dict[int, np.ndarray] = {}
    with demuxer(file) as (container, stream):
        if start is not None:
            container.seek(start, stream=stream)
        for frame in container.decode(stream):
            # Frames shown before the keyframe may lack their references; they are not what was asked for.
            if start is not None and frame.pts is not None and frame.pts < start:
                continue
            if frame.is_corrupt and not damaged:
                raise BadClip("decode", "a damaged frame")
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = to_rgb(frame, height, width)
            if len(found) == len(wanted):
                break
    return found


def to_rgb(frame: VideoFrame, height: int | None, width: int | None) -> np.ndarray:
    """A frame as uint8 RGB `[height, width, 3]`, turned upright, resized (bicubic) where its size differs.

    Raises:
        BadClip: It is to be turned by other than a multiple of 90 degrees.
    """
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise BadClip("decode", f"the picture is to be turned by {frame.rotation} degrees")
    stored_height, stored_width = (width, height) if turns % 2 else (height, width)
    if (stored_height, stored_width) in ((None, None), (frame.height, frame.width)):
        pixels = frame.to_ndarray(format="rgb24")
    else:
        pixels = frame.reformat(
            stored_width, stored_height, format="rgb24", interpolation="BICUBIC"
        ).to_ndarray()
    return np.rot90(pixels, turns)

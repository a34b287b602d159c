"""Frames by timestamp with PyAV: a frame is returned only if its decoded timestamp is the asked one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from mm_data.bad import BadClip
from mm_data.video.images import composed, read_image
from mm_data.video.index import VideoIndex, decoder_of, demuxer
from mm_data.video.shown import Shown, has_alpha


def read_frames(
    file: BinaryIO,
    index: VideoIndex,
    wanted: Sequence[int],
    *,
    height: int | None,
    width: int | None,
    damaged: bool = False,
    finish: Callable[[np.ndarray], np.ndarray] | None = None,
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
        finish: What becomes of each frame as soon as it is there, so that none but its outcome is kept.

    Returns:
        uint8 RGB `[len(wanted), height, width, 3]`, or of the size that `finish` gives.

    Raises:
        BadClip: A frame is damaged, or doesn't come out even from the start of the file.
    """
    if index.still:
        picture = VideoFrame.from_ndarray(read_image(file, index.codec.upper()), format="rgb24")
        pixels = to_rgb(picture, index.shown, height, width)
        return (finish(pixels) if finish else pixels)[None].repeat(len(wanted), axis=0)
    assert set(wanted) <= set(index.pts)
    assert list(wanted) == sorted(wanted)
    places: dict[int, list[int]] = {}
    for place, pts in enumerate(wanted):
        places.setdefault(pts, []).append(place)
    frames: np.ndarray | None = None
    missing = set(places)
    for start in starts(index, wanted[0]):
        missing = set(places)
        try:
            for pts, pixels in _decoded(file, start, index.shown, missing, height, width, damaged):
                finished = finish(pixels) if finish else pixels
                if frames is None:
                    frames = np.empty((len(wanted), *finished.shape), np.uint8)
                frames[places[pts]] = finished
        except BadClip:
            if start is None:
                raise
            continue
        if frames is not None and not missing:
            return frames
    raise BadClip("decode", f"no frame has the timestamp {float(min(missing) * index.time_base):.3f} s")


def starts(index: VideoIndex, first: int) -> tuple[int | None, ...]:
    """Keyframes to start from for a frame, the nearest first; None is the start of the file."""
    before = bisect_right(index.keyframes, first)
    nearest = tuple(reversed(index.keyframes[max(before - 2, 0) : before]))
    return (*(start for start in nearest if start != index.keyframes[0]), None)


def _decoded(
    file: BinaryIO,
    start: int | None,
    shown: Shown,
    missing: set[int],
    height: int | None,
    width: int | None,
    damaged: bool,
) -> Iterator[tuple[int, np.ndarray]]:
    """Wanted frames as they come out when decoding starts at a keyframe, or at the file's start.

    Each is taken out of `missing`; the end is reached once none is left.
    """
    scaler = VideoReformatter()
    with demuxer(file) as (container, stream):
        if start is not None:
            container.seek(start, stream=stream)
        decoder = decoder_of(stream)
        for frame in (frame for packet in container.demux(stream) for frame in decoder.decode(packet)):
            # Frames shown before the keyframe may lack their references; they are not what was asked for.
            if start is not None and frame.pts is not None and frame.pts < start:
                continue
            if frame.is_corrupt and not damaged:
                raise BadClip("decode", "a damaged frame")
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield frame.pts, to_rgb(frame, shown, height, width, scaler)
            if not missing:
                return


def to_rgb(
    frame: VideoFrame,
    shown: Shown,
    height: int | None,
    width: int | None,
    scaler: VideoReformatter | None = None,
) -> np.ndarray:
    """A frame turned as it is shown, uint8 RGB `[height, width, 3]`, resized (bicubic) if its size differs.

    Args:
        frame: As it was decoded.
        shown: How it is turned.
        height, width: Size of the returned frame; None keeps that of the file.
        scaler: What the frames of a clip share, since swscale takes time to set itself up for a size.
    """
    if has_alpha(frame):
        frame = VideoFrame.from_ndarray(composed(frame.to_ndarray(format="rgba")), format="rgb24")
    rows, columns = (width, height) if shown.turns % 2 else (height, width)
    same = (rows, columns) in ((None, None), (frame.height, frame.width))
    size = (None, None) if same else (columns, rows)
    # One thread: the others are busy with other clips.
    scaled = (scaler or VideoReformatter()).reformat(
        frame, *size, format="rgb24", interpolation=None if same else "BICUBIC", threads=1
    )
    return shown.upright(scaled.to_ndarray())

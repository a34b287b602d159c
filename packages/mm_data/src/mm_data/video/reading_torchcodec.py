"""Frames with torchcodec in its exact mode, asked by time; the times that come back are compared.

torchcodec needs an FFmpeg on the system. Files are opened by the index first, with its allow-lists.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame

from mm_config.schema import Problem, UserError
from mm_data.bad import BadClip
from mm_data.video.index import VideoIndex
from mm_data.video.reading import read_frames, to_rgb
from mm_data.video.shown import Shown


def require_torchcodec() -> ModuleType:
    """torchcodec's module of decoders.

    Raises:
        UserError: It isn't installed, or doesn't find FFmpeg or CUDA's libraries.
    """
    try:
        return importlib.import_module("torchcodec.decoders")
    except ModuleNotFoundError as error:
        message = 'the reader torchcodec is not installed: pip install "mm-data[torchcodec]"'
        raise UserError(Problem("spec.data.reader", message)) from error
    except (ImportError, OSError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        message = f"the reader torchcodec can't be imported, mostly for want of FFmpeg's libraries: {why}"
        raise UserError(Problem("spec.data.reader", message)) from error


def read_frames_torchcodec(
    file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
) -> np.ndarray:
    """Decodes the frames with the wanted timestamps, as `ReadFrames` says.

    Raises:
        BadClip: torchcodec fails, returns frames of other times, or would return wrong pixels.
    """
    if index.still:
        return read_frames(file, index, wanted, height=height, width=width)
    decoders = require_torchcodec()
    if unsafe := _unsafe(index):
        raise BadClip("decode", f"torchcodec can't be trusted with {unsafe}; use the reader pyav")
    file.seek(0)
    try:
        decoder = decoders.VideoDecoder(file, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1)
        # The middle of the shortest frame, so that no rounding asks for a neighbour.
        inside = _half_a_frame(index)
        batch = decoder.get_frames_played_at([float(pts * index.time_base) + inside for pts in wanted])
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadClip("decode", f"torchcodec: {' '.join(str(error).split())[:200]}") from error
    for pts, got in zip(wanted, batch.pts_seconds.tolist(), strict=True):
        asked = float(pts * index.time_base)
        if abs(got - asked) > inside / 2:
            wrong = f"torchcodec returned the frame of {got:.3f} s for that of {asked:.3f} s"
            raise BadClip("decode", f"{wrong}; use the reader pyav")
    frames = batch.data.numpy()
    if frames.shape[1:3] == (height, width):
        return frames
    upright = Shown(height, width)
    return np.stack(
        [to_rgb(VideoFrame.from_ndarray(frame, format="rgb24"), upright, height, width) for frame in frames]
    )


def _half_a_frame(index: VideoIndex) -> float:
    """Seconds: half of the time between the two frames that are nearest to each other."""
    ends = (*index.pts[1:], index.pts[0] + int(index.seconds / index.time_base))
    nearest = min((end - pts for pts, end in zip(index.pts, ends, strict=True) if end > pts), default=1)
    return float(nearest * index.time_base) / 2


def _unsafe(index: VideoIndex) -> str | None:
    if index.container == "mpegts":
        return "MPEG transport streams"
    if index.shown.mirrored:
        return "mirrored pictures"
    if index.alpha:
        return "alpha"
    return "several video streams" if index.streams > 1 else None

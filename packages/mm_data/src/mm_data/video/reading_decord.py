"""Frames with decord, for files in which it returns the asked frames.

On open GOPs, edit lists and MPEG transport streams decord returns other frames than asked for, without an
error, so such clips are refused. Damaged frames it may return as well: only PyAV tells them. Which frames are
wanted is decided by the same index as for PyAV.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
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


def require_decord() -> ModuleType:
    """The decord module.

    Raises:
        UserError: It isn't installed.
    """
    try:
        decord = importlib.import_module("decord")
    except ImportError as error:
        message = 'the reader decord is not installed: pip install "mm-data[decord]"'
        raise UserError(Problem("spec.data.reader", message)) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def read_frames_decord(
    file: BinaryIO, index: VideoIndex, wanted: Sequence[int], *, height: int, width: int
) -> np.ndarray:
    """Decodes the frames with the wanted timestamps.

    Args:
        file: An opened video file.
        index: What `index_video` found in it.
        wanted: Timestamps out of `index.pts`.
        height, width: Size of the returned frames.

    Returns:
        uint8 RGB `[len(wanted), height, width, 3]`.

    Raises:
        BadClip: Neither can read the wanted frames, or decord would return wrong ones.
    """
    if index.still:
        return read_frames(file, index, wanted, height=height, width=width)
    decord = require_decord()
    if unsafe := _unsafe(index):
        raise BadClip("decode", f"decord can't be trusted with {unsafe}; use the reader pyav")
    file.seek(0)
    try:
        reader = decord.VideoReader(file, num_threads=1)
        if len(reader) != len(index.pts):
            raise BadClip("decode", f"decord counts {len(reader)} frames, the file has {len(index.pts)}")
        frames = reader.get_batch([bisect_left(index.pts, pts) for pts in wanted]).asnumpy()
    except (decord.DECORDError, RuntimeError):
        # decord decodes on beyond the wanted frames, and damage there fails or not, as its threads happen to
        # run. PyAV tells whether the wanted ones can be decoded, and then decodes the same ones. It takes
        # damaged ones too, as decord does where it fails at nothing: what is bad must not change by chance.
        frames = read_frames(file, index, wanted, height=None, width=None, damaged=True)
    if frames.shape[1:3] == (height, width):
        return frames
    # decord's own resizing fails on widths that are not aligned, so swscale does it, as for PyAV.
    upright = Shown(height, width)
    return np.stack(
        [to_rgb(VideoFrame.from_ndarray(frame, format="rgb24"), upright, height, width) for frame in frames]
    )


def _unsafe(index: VideoIndex) -> str | None:
    if index.open_gop:
        return "open GOPs"
    if index.edited:
        return "files with an edit list"
    if index.codec == "av1":
        return "AV1, which it doesn't know"
    if index.alpha:
        return "alpha"
    if index.shown.mirrored:
        return "mirrored pictures"
    if index.streams > 1:
        return "several video streams"
    return "MPEG transport streams" if index.container == "mpegts" else None

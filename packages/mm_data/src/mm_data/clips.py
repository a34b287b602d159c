"""From a record to the frames a model is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import BinaryIO

import attrs
import numpy as np
import torch

from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, Reader
from mm_data.bad import BadClip, Fault
from mm_data.records import Record
from mm_data.transforms.sampling import sampled
from mm_data.video.index import index_video, open_video
from mm_data.video.isolated import DECORD, isolated
from mm_data.video.limits import failure, is_short, require_frames
from mm_data.video.reading import read_frames
from mm_data.video.reading_decord import require_decord


@attrs.frozen
class Clip:
    """Decoded frames and what they show."""

    frames: torch.Tensor
    """uint8 `[T, H, W, 3]`, RGB."""
    caption: str
    """What they show."""


def load_clip(record: Record, data: DataSpec) -> Clip:
    """Decodes the head of a clip: `num_frames` at `fps` from its first frame, resized to `height x width`.

    Resizing happens in the colour conversion (swscale, bicubic) and doesn't keep the aspect ratio; a clip
    that has the wanted size is not resampled.

    Raises:
        BadClip: The file is missing, too short, damaged, or not safe for the chosen reader.
        UserError: The machine can't read it, also when it is tried once more, whatever is in it.
    """
    try:
        frames = _read(record, data)
    except BadClip as bad:
        frames = _read_again(record, data, bad)
    return Clip(torch.from_numpy(frames), record.caption)


def _read_again(record: Record, data: DataSpec, bad: BadClip) -> np.ndarray:
    """What a second try reads where the first may have failed by no fault of the clip's.

    A file that lies on another machine may be reached again, and memory be free again.

    Raises:
        BadClip: The clip is at fault.
        UserError: The machine is.
    """
    if bad.fault is not Fault.CLIP:
        try:
            return _read(record, data)
        except BadClip as again:
            bad = again
    short = is_short(math.prod(_shape(data)))
    if bad.fault is Fault.MACHINE or short:
        what = "this machine is short of memory or threads" if short else "that is no fault of the clip's"
        raise UserError(Problem(str(record.path), f"can't be read, and {what}: {bad}")) from bad
    raise bad


def _shape(data: DataSpec) -> tuple[int, ...]:
    return (data.num_frames, data.height, data.width, 3)


def _read(record: Record, data: DataSpec) -> np.ndarray:
    with open_video(record.path) as file:
        return _decoded(file, record, data)


def _decoded(file: BinaryIO, record: Record, data: DataSpec) -> np.ndarray:
    """Raises BadClip whatever a decoder raises: on damaged files they raise nearly anything."""
    try:
        index = index_video(file)
        wanted = sampled(data, index, record.cut, data.num_frames, "")
        frames = reader_of(data.reader)(file, index, wanted, height=data.height, width=data.width)
        require_frames(frames, _shape(data))
    except UserError:
        raise
    except Exception as error:
        raise failure(error) from error
    return frames


def reader_of(reader: Reader) -> Callable[..., np.ndarray]:
    """What reads frames: decord, which ends its process on some damaged files, in a process of its own.

    Raises:
        UserError: It isn't installed.
    """
    if reader is Reader.PYAV:
        return read_frames
    require_decord()
    return isolated(DECORD)

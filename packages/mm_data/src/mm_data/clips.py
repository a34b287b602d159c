"""From a record to the frames a model is trained on."""

from __future__ import annotations

import math
from typing import BinaryIO

import attrs
import numpy as np
import torch

from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.bad import BadClip, Fault
from mm_data.records import Asked, Shape
from mm_data.transforms.sampling import sampled
from mm_data.video.index import open_video
from mm_data.video.limits import failure, is_short, require_frames
from mm_data.video.readers import indexer_of, reader_of


@attrs.frozen
class Clip:
    """Decoded frames and what they show."""

    frames: torch.Tensor
    """uint8 `[T, H, W, 3]`, RGB."""
    caption: str
    """What they show."""


def load_clip(asked: Asked, data: DataSpec) -> Clip:
    """Decodes the head of a clip: the frames of the asked shape at `fps` from its first one, resized.

    Resizing happens in the colour conversion (swscale, bicubic) and doesn't keep the aspect ratio; a clip
    that has the wanted size is not resampled.

    Raises:
        BadClip: The file is missing, too short, damaged, or not safe for the chosen reader.
        UserError: The machine can't read it, also when it is tried once more, whatever is in it.
    """
    try:
        frames = _read(asked, data)
    except BadClip as bad:
        frames = _read_again(asked, data, bad)
    return Clip(torch.from_numpy(frames), asked.record.caption)


def _read_again(asked: Asked, data: DataSpec, bad: BadClip) -> np.ndarray:
    """What a second try reads where the first may have failed by no fault of the clip's.

    A file that lies on another machine may be reached again, and memory be free again.

    Raises:
        BadClip: The clip is at fault.
        UserError: The machine is.
    """
    if bad.fault is not Fault.CLIP:
        try:
            return _read(asked, data)
        except BadClip as again:
            bad = again
    short = is_short(math.prod(_array_shape(asked.shape)))
    if bad.fault is Fault.MACHINE or short:
        what = "this machine is short of memory or threads" if short else "that is no fault of the clip's"
        raise UserError(Problem(str(asked.record.path), f"can't be read, and {what}: {bad}")) from bad
    raise bad


def _array_shape(shape: Shape) -> tuple[int, ...]:
    return (shape.num_frames, shape.height, shape.width, 3)


def _read(asked: Asked, data: DataSpec) -> np.ndarray:
    with open_video(asked.record.path) as file:
        return _decoded(file, asked, data)


def _decoded(file: BinaryIO, asked: Asked, data: DataSpec) -> np.ndarray:
    """Raises BadClip whatever a decoder raises: on damaged files they raise nearly anything."""
    try:
        index = indexer_of(data.isolated)(file)
        shape = asked.shape
        wanted = sampled(data, index, asked.record.cut, shape.num_frames, asked.draw)
        read = reader_of(data.reader, data.isolated)
        frames = read(file, index, wanted, height=shape.height, width=shape.width)
        require_frames(frames, _array_shape(shape))
    except UserError:
        raise
    except Exception as error:
        raise failure(error) from error
    return frames

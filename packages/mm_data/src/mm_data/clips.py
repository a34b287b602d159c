"""From a record to the frames a model is trained on."""

from __future__ import annotations

import math
from typing import BinaryIO

import attrs
import numpy as np
import torch

from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, Interpolation
from mm_data.bad import BadClip, Fault
from mm_data.media import open_media
from mm_data.records import Asked, Shape
from mm_data.remote import allowed_by
from mm_data.transforms.captions import caption_of
from mm_data.transforms.framing import framing
from mm_data.transforms.resizing import framed
from mm_data.transforms.sampling import sampled
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
    """Decodes the frames of a clip that show it at the asked times, as its batch has them, and its caption.

    Without a crop of the record's own, a bicubic resizing is one step with the colour conversion (swscale);
    a clip that has the wanted size is not resampled.

    Raises:
        BadClip: The file is missing, too short, damaged, or not safe for the chosen reader.
        UserError: The machine can't read it, also when it is tried once more, whatever is in it.
    """
    try:
        frames = _read(asked, data)
    except BadClip as bad:
        frames = _read_again(asked, data, bad)
    return Clip(torch.from_numpy(frames), caption_of(asked.record, data, asked.draw))


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
    record = asked.record
    with open_media(record.path, record.part, record.url, allowed_by(data.dataset)) as file:
        return _decoded(file, asked, data)


def _decoded(file: BinaryIO, asked: Asked, data: DataSpec) -> np.ndarray:
    """Raises BadClip whatever a decoder raises: on damaged files they raise nearly anything."""
    try:
        index, shape, record = indexer_of(data.isolated)(file), asked.shape, asked.record
        wanted = sampled(data, index, record.cut, shape.num_frames, asked.draw)
        top, left, height, width = record.crop or (0, 0, index.shown.height, index.shown.width)
        if top + height > index.shown.height or left + width > index.shown.width:
            raise BadClip("sample", f"its crop is outside of {index.shown.width}x{index.shown.height} pixels")
        how = framing(data, height, width, shape, asked.draw)
        # A resizing of whole frames is one step with their conversion to RGB.
        at_once = record.crop is None and data.interpolation is Interpolation.BICUBIC
        size = (how.height, how.width) if at_once else (index.shown.height, index.shown.width)
        read = reader_of(data.reader, data.isolated)
        frames = read(file, index, wanted, height=size[0], width=size[1])
        require_frames(frames, (shape.num_frames, *size, 3))
        if not at_once:
            frames = frames[:, top : top + height, left : left + width]
        if not at_once or how.crops or how.flip:
            frames = np.stack([framed(frame, how, data.interpolation) for frame in frames])
    except UserError:
        raise
    except Exception as error:
        raise failure(error) from error
    return frames

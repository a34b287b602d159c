"""From a record to the frames a model is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

import attrs
import numpy as np
import torch

from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec, Interpolation
from mm_data.bad import BadClip, Fault
from mm_data.media import open_media
from mm_data.records import Asked, Record, Shape
from mm_data.remote import allowed_by
from mm_data.transforms.captions import caption_of
from mm_data.transforms.framing import framing
from mm_data.transforms.resizing import framed
from mm_data.transforms.sampling import sampled
from mm_data.video.index import VideoIndex
from mm_data.video.limits import failure, is_short, require_frames
from mm_data.video.readers import ReadFrames, indexer_of, reader_of
from mm_data.video.reading import read_frames
from mm_data.video.shown import Shown


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
        crop = _crop(record, index.shown)
        how = framing(data, crop[2], crop[3], shape, asked.draw)
        # A resizing of whole frames is one step with their conversion to RGB.
        at_once = record.crop is None and data.interpolation is Interpolation.BICUBIC
        size = (how.height, how.width) if at_once else (index.shown.height, index.shown.width)
        finish = None
        if not at_once or how.crops or how.flip:
            own = None if at_once else crop
            finish = partial(framed, crop=own, how=how, interpolation=data.interpolation)
        frames = _frames(reader_of(data.reader, data.isolated), file, index, wanted, size, finish)
        require_frames(frames, _array_shape(shape))
    except UserError:
        raise
    except Exception as error:
        raise failure(error) from error
    return frames


def _crop(record: Record, shown: Shown) -> tuple[int, int, int, int]:
    """Top, left, height and width of what a record takes of a shown frame.

    Raises:
        BadClip: That is not inside of the frame.
    """
    top, left, height, width = record.crop or (0, 0, shown.height, shown.width)
    if not (0 <= top < top + height <= shown.height and 0 <= left < left + width <= shown.width):
        raise BadClip("sample", f"its crop is outside of {shown.width}x{shown.height} pixels")
    return top, left, height, width


def _frames(
    read: ReadFrames,
    file: BinaryIO,
    index: VideoIndex,
    wanted: tuple[int, ...],
    size: tuple[int, int],
    finish: Callable[[np.ndarray], np.ndarray] | None,
) -> np.ndarray:
    """The wanted frames, read in a size and finished one by one."""
    height, width = size
    if read is read_frames:
        return read_frames(file, index, wanted, height=height, width=width, finish=finish)
    frames = read(file, index, wanted, height=height, width=width)
    require_frames(frames, (len(wanted), height, width, 3))
    return np.stack([finish(frame) for frame in frames]) if finish else frames

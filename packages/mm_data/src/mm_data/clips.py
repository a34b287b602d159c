"""From a record to the frames a model is trained on."""

from __future__ import annotations

import attrs
import torch

from mm_config.specs import DataSpec, Reader
from mm_data.bad import BadClip
from mm_data.records import Record
from mm_data.video.index import VideoIndex, index_video, open_video
from mm_data.video.reading import read_frames
from mm_data.video.reading_decord import read_frames_decord, require_decord
from mm_data.video.sampling import nearest_frames


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
    """
    with open_video(record.path) as file:
        index = index_video(file)
        wanted = head(index, data)
        read = read_frames_decord if data.reader is Reader.DECORD else read_frames
        frames = read(file, index, wanted, height=data.height, width=data.width)
    return Clip(torch.from_numpy(frames), record.caption)


def head(index: VideoIndex, data: DataSpec) -> tuple[int, ...]:
    """The timestamps of `num_frames` at `fps` from the clip's first frame.

    Raises:
        BadClip: The clip ends earlier.
    """
    wanted = nearest_frames(index, data.num_frames, data.fps)
    if wanted is None:
        needed = (data.num_frames - 1) / data.fps
        raise BadClip(
            "sample",
            f"{float(index.seconds):.3f} s are too short for {data.num_frames} frames at {data.fps:g} "
            f"frames/s, whose last is at {needed:.3f} s",
        )
    return wanted


def check_reader(reader: Reader) -> None:
    """Raises UserError where the chosen reader isn't installed."""
    if reader is Reader.DECORD:
        require_decord()

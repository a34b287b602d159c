"""Given videos: files whose first frames a video starts from, with as much noise as its strength says.

Shapes: T frames, H, W the video's height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

import mm_data
from mm_config.rules import counted
from mm_config.schema import UserError


@contextmanager
def opened_file(file: str) -> Iterator[BinaryIO]:
    """A given file; whatever goes wrong with it is a UserError that names it."""
    if not Path(file).exists():
        raise UserError(f"{file}: there is no such file")
    if not Path(file).is_file():
        raise UserError(f"{file}: is no file")
    try:
        with open(file, "rb") as opened:
            yield opened
    except mm_data.BadClip as error:
        raise UserError(f"{file}: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror or error}") from error


def shown_size(file: str) -> tuple[int, int]:
    """Height and width in which a video is shown. Raises UserError."""
    with opened_file(file) as opened:
        shown = mm_data.index_video(opened).shown
    return shown.height, shown.width


def require_frames(file: str, count: int) -> None:
    """Raises UserError where a video can't be read, or has fewer frames than are asked for."""
    with opened_file(file) as opened:
        found = len(mm_data.index_video(opened).pts)
    if found < count:
        raise UserError(f"{file}: has {counted(found, 'frame')}, but {count} are asked for; ask for fewer")


def first_frames(file: str, count: int, height: int, width: int) -> Tensor:
    """The first frames of a video, whatever its frame rate: float32 `[3, T, H, W]` in [-1, 1].

    Each covers the size, its middle cut out, as an image that is cropped (`mm_data.covering`).

    Raises:
        UserError: It can't be read.
    """

    def covered(frame: np.ndarray) -> np.ndarray:
        return frame if frame.shape[:2] == (height, width) else mm_data.covering(frame, height, width)

    with opened_file(file) as opened:
        index = mm_data.index_video(opened)
        frames = mm_data.read_frames(
            opened, index, index.pts[:count], height=None, width=None, finish=covered
        )
    return mm_data.to_model_range(torch.from_numpy(frames))

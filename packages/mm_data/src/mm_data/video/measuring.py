"""How much the frames of two videos differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from mm_config.schema import Problem, UserError


def largest_difference(old: Path, new: Path) -> dict[str, float]:
    """The largest difference of any pixel as a share of 255, by the name ""; nothing where shapes differ.

    Raises:
        UserError: A video can't be decoded.
    """
    largest = 0
    try:
        for was, is_now in zip(_frames(old), _frames(new), strict=True):
            largest = max(largest, int(np.abs(was - is_now).max()))
    except (OSError, FFmpegError) as error:
        raise UserError(Problem(str(old), f"can't be compared with {new}: {error}")) from error
    except ValueError:
        return {}
    return {"": largest / 255}


def _frames(path: Path) -> Iterator[np.ndarray]:
    """Frames `[H, W, 3]`, 0 to 255 in int16, so that differences have a sign."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.int16)

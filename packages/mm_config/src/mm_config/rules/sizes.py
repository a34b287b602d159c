"""Heights and widths of an area and an aspect ratio, in whole tokens."""

from __future__ import annotations

import math
import re

from mm_config.specs.kinds import AutoencoderSpec, ModelSpec
from mm_config.specs.requests import Resolution

AREAS = {Resolution.P480: 832 * 480, Resolution.P720: 1280 * 720}
"""Pixels of each resolution, at any aspect ratio."""
_USUAL = ((16, 9), (9, 16), (4, 3), (3, 4), (1, 1))
"""Width and height of the aspect ratios that sizes are rounded from."""


def cells(model: ModelSpec, autoencoder: AutoencoderSpec) -> tuple[int, int]:
    """Pixels of one token along height and width."""
    _, patch_h, patch_w = model.patch_size
    return autoencoder.spatial_stride * patch_h, autoencoder.spatial_stride * patch_w


def ratio_of(text: str) -> tuple[int, int] | None:
    """Width and height of `16:9`; None where it is no ratio of whole numbers from 1 to 9999."""
    match = re.fullmatch("([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", text)
    return (int(match[1]), int(match[2])) if match else None


def meant_ratio(height: int, width: int, cell: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the usual aspect ratio that a size is the rounding of, else of the size itself.

    480 x 832 is meant as 16:9 where tokens have 16 pixels.
    """
    for ratio in _USUAL:
        if any(size_of(ratio, area, cell) == (height, width) for area in AREAS.values()):
            return ratio
    return width, height


def size_of(ratio: tuple[int, int], area: int, cell: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an aspect ratio at about an area: `best_size`, and a square for 1:1.

    Args:
        ratio: Width and height.
        area: Pixels that the size has at most.
        cell: Height and width of a token in pixels.

    Returns:
        Both in whole tokens; a side is 0 where not one token fits along it.
    """
    width, height = ratio
    found = best_size(height, width, area, cell)
    # Of a square both ways to round are equally near, and each makes one side longer.
    return area_size(height, width, area, cell) if width == height and cell[0] == cell[1] else found


def area_size(height: int, width: int, area: int, cell: tuple[int, int]) -> tuple[int, int]:
    """An area of an image's aspect ratio, each side rounded down to whole tokens.

    Formula: Wan's `image2video.py`, `lat_h = sqrt(area * h / w) // stride // patch * patch` and so on, in
    integers, where floats may fall one token short.
    """
    rows, columns = cell
    return (
        math.isqrt(area * height // (width * rows**2)) * rows,
        math.isqrt(area * width // (height * columns**2)) * columns,
    )


def best_size(height: int, width: int, area: int, cell: tuple[int, int]) -> tuple[int, int]:
    """At most an area: one side of the image's aspect ratio in whole tokens, the other as long as may be.

    Formula: `best_output_size` of Wan's `utils.py`: of both sides that may come first, the one whose outcome
    is nearer to the aspect ratio.
    """
    rows, columns = cell
    first_height, first_width = area_size(height, width, area, cell)
    if not (first_height and first_width):
        return first_height, first_width
    by_width = area // first_width // rows * rows, first_width
    by_height = first_height, area // first_height // columns * columns

    def apart(size: tuple[int, int]) -> float:
        ratio = size[1] * height / (size[0] * width)
        return max(ratio, 1 / ratio)

    return by_width if apart(by_width) < apart(by_height) else by_height

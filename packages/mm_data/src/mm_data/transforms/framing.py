"""Which size a clip gets, and which part of its frames is seen."""

from __future__ import annotations

import math

import attrs

from mm_config.specs import DataSpec, Resize
from mm_data.records import Shape
from mm_data.transforms.draws import below, uniform
from mm_data.transforms.grid import WAN, Grid


@attrs.frozen
class Framing:
    """What becomes of each frame of a clip: it is resized, then cropped, then mirrored."""

    height: int
    """Of the resized frame, in pixels."""
    width: int
    """Of the resized frame."""
    top: int
    """The first line that is kept."""
    left: int
    """The first column that is kept."""
    crop_height: int
    """Lines that are kept."""
    crop_width: int
    """Columns that are kept."""
    flip: bool
    """Whether left and right are swapped."""

    @property
    def crops(self) -> bool:
        """Whether less than the resized frame is kept."""
        return (self.crop_height, self.crop_width) != (self.height, self.width)


def size_of(data: DataSpec, height: int, width: int, grid: Grid = WAN) -> tuple[int, int] | str:
    """The height and width that a clip gets, or why it is left out.

    With buckets it is the size whose aspect ratio is the nearest, of several the one with most pixels that
    the clip has, else the smallest.

    Args:
        data: Its sizes and filters.
        height, width: Of a shown frame: upright, with square pixels, within the record's crop.
        grid: For `resize = area` without a `size_multiple`.
    """
    size = (data.height, data.width)
    if data.resize is Resize.AREA:
        size = area_size(height, width, data.height * data.width, data.size_multiple or grid.pixels)
        if 0 in size:
            return "a side shorter than data.size_multiple"
        height, width = size
    if data.min_pixels is not None and height * width < data.min_pixels:
        return "fewer pixels than data.min_pixels"
    if data.max_aspect_ratio is not None and max(height / width, width / height) > data.max_aspect_ratio:
        return "more elongated than data.max_aspect_ratio"
    if data.buckets:
        size = _nearest({(bucket.height, bucket.width) for bucket in data.buckets}, height, width)
    return size


def area_size(height: int, width: int, most: int, multiple: int) -> tuple[int, int]:
    """A size of about the same aspect ratio with at most `most` pixels, in multiples of `multiple`.

    Clips are never enlarged. As MindSpeed-MM's `maxhwresize` and the cut to `hw_stride` after it.
    """
    if height * width > most:
        scale = math.sqrt(most / (height * width))
        height, width = int(height * scale), int(width * scale)
    return height // multiple * multiple, width // multiple * multiple


def _nearest(sizes: set[tuple[int, int]], height: int, width: int) -> tuple[int, int]:
    def order(size: tuple[int, int]) -> tuple[float, bool, int, tuple[int, int]]:
        pixels, ratio = size[0] * size[1], size[0] * width / (size[1] * height)
        larger = pixels > height * width
        # Ratios that differ by rounding alone are the same.
        return (round(abs(math.log(ratio)), 9), larger, pixels if larger else -pixels, size)

    return min(sizes, key=order)


def framing(data: DataSpec, height: int, width: int, shape: Shape, draw: str) -> Framing:
    """How the frames of a clip become those of its batch.

    Args:
        data: How clips are resized, and how many are mirrored.
        height, width: Of a shown frame: upright, with square pixels, within the record's crop.
        shape: Of the batch.
        draw: What random choices follow from.
    """
    flip = uniform(draw, "flip") < data.flip_share
    if data.resize is Resize.STRETCH:
        return Framing(shape.height, shape.width, 0, 0, shape.height, shape.width, flip)
    new_height, new_width = _cover(height, width, shape)
    rows, columns = new_height - shape.height, new_width - shape.width
    if data.resize is Resize.RANDOM_CROP:
        top, left = below(draw, "top", rows + 1), below(draw, "left", columns + 1)
    else:
        # Python's rounding to even, as torchvision's and MindSpeed-MM's centre crops have it.
        top, left = round(rows / 2), round(columns / 2)
    return Framing(new_height, new_width, top, left, shape.height, shape.width, flip)


def _cover(height: int, width: int, shape: Shape) -> tuple[int, int]:
    """The smallest size of the same aspect ratio that covers a shape, rounded down."""
    if height * shape.width > width * shape.height:
        return height * shape.width // width, shape.width
    return shape.height, width * shape.height // height

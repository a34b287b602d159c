"""One picture of many videos: each a strip of a few frames with its caption below, in their order."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mm_config.durable import staged_file

BACKGROUND, HEADING, CAPTION, FAINT = "#14161a", "#f2f3f5", "#b9bec8", "#6f7683"
MARGIN, GAP, FRAME_GAP, CAPTION_HEIGHT, HEADING_HEIGHT = 32, 24, 4, 26, 76
CAPTION_SIZE, HEADING_SIZE = 16, 26


@attrs.frozen(eq=False)
class Strip:
    """One video on a sheet."""

    frames: np.ndarray | torch.Tensor
    """uint8 RGB `[T, H, W, 3]`."""
    caption: str
    """What is written below it, cut where it is too long."""


@attrs.frozen
class Layout:
    """Sizes in pixels of a sheet's parts."""

    columns: int
    """Strips side by side."""
    rows: int
    """Strips one below the other."""
    frame_size: tuple[int, int]
    """Width and height that each frame has room for."""
    frames: int
    """Frames of each strip."""

    @property
    def strip_width(self) -> int:
        """Width of one strip."""
        return self.frames * (self.frame_size[0] + FRAME_GAP) - FRAME_GAP

    @property
    def cell_height(self) -> int:
        """Height of a strip and its caption."""
        return self.frame_size[1] + CAPTION_HEIGHT

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        width = 2 * MARGIN + self.columns * (self.strip_width + GAP) - GAP
        height = 2 * MARGIN + HEADING_HEIGHT + self.rows * (self.cell_height + GAP) - GAP
        return width, height

    def corner(self, index: int) -> tuple[int, int]:
        """Upper left corner of a strip; strips fill rows from left to right."""
        row, column = divmod(index, self.columns)
        return (
            MARGIN + column * (self.strip_width + GAP),
            MARGIN + HEADING_HEIGHT + row * (self.cell_height + GAP),
        )


def write_contact_sheet(
    path: Path,
    strips: Sequence[Strip],
    *,
    title: str,
    subtitle: str = "",
    columns: int = 4,
    frames: int = 5,
    frame_height: int = 64,
) -> None:
    """Writes a PNG.

    Args:
        path: The PNG.
        strips: At least one.
        title, subtitle: Lines at the top; the sheet is as wide as they need.
        columns: Strips per row.
        frames: Frames per strip, evenly spaced from the first to the last.
        frame_height: Height of one frame in pixels; its width keeps the video's proportions.
    """
    columns = min(columns, len(strips))
    layout = Layout(
        columns=columns,
        rows=-(-len(strips) // columns),
        frame_size=(max(_width(strip, frame_height) for strip in strips), frame_height),
        frames=min(frames, max(len(strip.frames) for strip in strips)),
    )
    heading, small = ImageFont.load_default(HEADING_SIZE), ImageFont.load_default(CAPTION_SIZE)
    longest_line = math.ceil(max(heading.getlength(title), small.getlength(subtitle)))
    size = max(layout.size[0], 2 * MARGIN + longest_line), layout.size[1]
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 8), title, HEADING, heading)
    draw.text((MARGIN, MARGIN + 28), subtitle, FAINT, small)
    for index, strip in enumerate(strips):
        _draw_strip(sheet, draw, layout, layout.corner(index), strip)
    with staged_file(path) as stage:
        sheet.save(stage, "PNG", optimize=True)


def _draw_strip(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, layout: Layout, corner: tuple[int, int], strip: Strip
) -> None:
    left, top = corner
    frame_width, frame_height = layout.frame_size
    size, pixels = (_width(strip, frame_height), frame_height), np.asarray(strip.frames)
    for place, moment in enumerate(frame_moments(len(pixels), layout.frames)):
        frame = Image.fromarray(pixels[moment]).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(frame, (left + place * (frame_width + FRAME_GAP), top))
    font = ImageFont.load_default(CAPTION_SIZE)
    room = int(layout.strip_width / font.getlength("n"))
    caption = textwrap.shorten(strip.caption, max(room, 12), placeholder=" …")
    draw.text((left, top + frame_height + 5), caption, CAPTION, font)


def _width(strip: Strip, height: int) -> int:
    """Of a frame that keeps its proportions."""
    _, frame_height, frame_width, _ = strip.frames.shape
    return max(1, round(frame_width * height / frame_height))


def frame_moments(length: int, count: int) -> list[int]:
    """Indices of `count` frames, evenly spaced from the first to the last; fewer frames come all, once."""
    count = min(count, length)
    return [round(place * (length - 1) / max(count - 1, 1)) for place in range(count)]

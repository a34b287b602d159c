"""One picture of many videos: each a strip of a few frames with its prompt below, in the requests' order."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import attrs
from PIL import Image, ImageDraw, ImageFont

from mm_config.durable import staged_file
from mm_infer.pipeline import Video

BACKGROUND, HEADING, CAPTION, FAINT = "#14161a", "#f2f3f5", "#b9bec8", "#6f7683"
MARGIN, GAP, FRAME_GAP, CAPTION_HEIGHT, HEADING_HEIGHT = 32, 24, 4, 26, 76
CAPTION_SIZE, HEADING_SIZE = 16, 26


@attrs.frozen
class Layout:
    """Sizes in pixels of a sheet's parts."""

    columns: int
    """Strips side by side."""
    rows: int
    """Strips one below the other."""
    frame_size: tuple[int, int]
    """Width and height of one frame."""
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
    videos: Sequence[Video],
    *,
    title: str,
    subtitle: str = "",
    columns: int = 4,
    frames: int = 5,
    frame_height: int = 64,
) -> None:
    """Writes a PNG of the first video of each prompt.

    Args:
        path: The PNG.
        videos: At least one, all of the same size.
        title, subtitle: Lines at the top; the sheet is as wide as they need.
        columns: Strips per row.
        frames: Frames per strip, evenly spaced from the first to the last.
        frame_height: Height of one frame in pixels; its width keeps the video's proportions.
    """
    firsts = list({video.request.prompt: video for video in reversed(videos)}.values())[::-1]
    length, height, width, _ = firsts[0].frames.shape
    columns = min(columns, len(firsts))
    layout = Layout(
        columns=columns,
        rows=-(-len(firsts) // columns),
        frame_size=(max(1, round(width * frame_height / height)), frame_height),
        frames=min(frames, length),
    )
    heading, small = ImageFont.load_default(HEADING_SIZE), ImageFont.load_default(CAPTION_SIZE)
    longest_line = math.ceil(max(heading.getlength(title), small.getlength(subtitle)))
    size = max(layout.size[0], 2 * MARGIN + longest_line), layout.size[1]
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 8), title, HEADING, heading)
    draw.text((MARGIN, MARGIN + 28), subtitle, FAINT, small)
    for index, video in enumerate(firsts):
        _draw_strip(sheet, draw, layout, layout.corner(index), video)
    with staged_file(path) as stage:
        sheet.save(stage, "PNG", optimize=True)


def _draw_strip(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, layout: Layout, corner: tuple[int, int], video: Video
) -> None:
    left, top = corner
    frame_width, frame_height = layout.frame_size
    for place, moment in enumerate(frame_moments(len(video.frames), layout.frames)):
        frame = Image.fromarray(video.frames[moment].numpy()).resize(
            layout.frame_size, Image.Resampling.LANCZOS
        )
        sheet.paste(frame, (left + place * (frame_width + FRAME_GAP), top))
    font = ImageFont.load_default(CAPTION_SIZE)
    room = int(layout.strip_width / font.getlength("n"))
    caption = textwrap.shorten(video.request.prompt, max(room, 12), placeholder=" …")
    draw.text((left, top + frame_height + 5), caption, CAPTION, font)


def frame_moments(length: int, count: int) -> list[int]:
    """Indices of `count` frames, evenly spaced from the first to the last."""
    return [round(place * (length - 1) / max(count - 1, 1)) for place in range(count)]

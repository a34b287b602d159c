"""A contact sheet shows each strip in order, its frames in time, whatever their sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from mm_data.looking.sheet import (
    BACKGROUND,
    CAPTION_HEIGHT,
    FRAME_GAP,
    GAP,
    HEADING_HEIGHT,
    MARGIN,
    Strip,
    frame_moments,
    write_contact_sheet,
)


def grey_strip(caption: str, *levels: int, width: int = 48) -> Strip:
    """One uniform frame of 32 x 48 pixels per grey level."""
    frames = [np.full((32, width, 3), level, dtype=np.uint8) for level in levels]
    return Strip(np.stack(frames), caption)


def test_a_sheet_shows_each_strip_in_order_with_its_frames_in_time(tmp_path: Path):
    strips = [grey_strip(f"prompt {place}", *range(40 * place, 40 * place + 9)) for place in range(5)]
    write_contact_sheet(tmp_path / "sheet.png", strips, title="sheet", columns=3, frames=3, frame_height=32)
    sheet = Image.open(tmp_path / "sheet.png")
    strip = 3 * 48 + 2 * FRAME_GAP
    cell = 32 + CAPTION_HEIGHT
    assert sheet.size == (2 * MARGIN + 3 * strip + 2 * GAP, 2 * MARGIN + HEADING_HEIGHT + 2 * cell + GAP)
    for place in range(5):
        row, column = divmod(place, 3)
        left, top = MARGIN + column * (strip + GAP), MARGIN + HEADING_HEIGHT + row * (cell + GAP)
        shown = [sheet.getpixel((left + frame * (48 + FRAME_GAP) + 24, top + 16)) for frame in range(3)]
        assert shown == [(40 * place + moment,) * 3 for moment in (0, 4, 8)]
        captioned = sheet.crop((left, top + 32, left + strip, top + cell)).getcolors()
        assert captioned is not None and len(captioned) > 1
    empty = sheet.crop((MARGIN + 2 * (strip + GAP), MARGIN + HEADING_HEIGHT + cell + GAP, *sheet.size))
    colours = empty.getcolors()
    assert colours is not None
    assert [colour for _, colour in colours] == [ImageColor.getrgb(BACKGROUND)]


def test_the_lines_at_the_top_are_whole_also_above_a_single_narrow_strip(tmp_path: Path):
    path, line = tmp_path / "sheet.png", "spec 0123456789ab    unipc, 40 steps    colour 100%    shape 98%"
    write_contact_sheet(path, [grey_strip("grey", 9)], title="sheet", subtitle=line, frames=1)
    sheet = Image.open(path)
    right_margin = sheet.crop((sheet.width - MARGIN, 0, sheet.width, MARGIN + HEADING_HEIGHT))
    assert sheet.width > 300
    assert right_margin.getcolors() == [(MARGIN * (MARGIN + HEADING_HEIGHT), ImageColor.getrgb(BACKGROUND))]


def test_strips_of_other_sizes_and_lengths_stand_beside_each_other(tmp_path: Path):
    strips = [grey_strip("wide", 10, 20, 30, width=64), grey_strip("narrow", 200, width=16)]
    write_contact_sheet(tmp_path / "sheet.png", strips, title="x", columns=1, frames=3, frame_height=32)
    sheet = Image.open(tmp_path / "sheet.png").convert("L")
    rows = [MARGIN + HEADING_HEIGHT + place * (32 + CAPTION_HEIGHT + GAP) + 16 for place in range(2)]
    middles = [MARGIN + frame * (64 + FRAME_GAP) + 8 for frame in range(3)]
    assert [sheet.getpixel((middle, rows[0])) for middle in middles] == [10, 20, 30]
    dark = Image.new("RGB", (1, 1), BACKGROUND).convert("L").getpixel((0, 0))
    assert [sheet.getpixel((middle, rows[1])) for middle in middles] == [200, dark, dark]


@pytest.mark.parametrize(
    ("length", "count", "moments"),
    [(17, 5, [0, 4, 8, 12, 16]), (5, 5, [0, 1, 2, 3, 4]), (9, 2, [0, 8]), (1, 1, [0]), (2, 5, [0, 1])],
)
def test_frames_of_a_strip_span_the_video(length: int, count: int, moments: list[int]):
    assert frame_moments(length, count) == moments

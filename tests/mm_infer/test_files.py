"""What lies in a folder afterwards: names, mp4s with their origin, the contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor

from mm_config import spec_hash
from mm_config.schema.errors import UserError
from mm_config.specs.infer import GenerationRequest, InferSpec
from mm_data import read_comment
from mm_infer.contact_sheet import (
    BACKGROUND,
    CAPTION_HEIGHT,
    FRAME_GAP,
    GAP,
    HEADING_HEIGHT,
    MARGIN,
    frame_moments,
    write_contact_sheet,
)
from mm_infer.naming import file_names
from mm_infer.pipeline import Video
from mm_infer.writing import write_video


def request(prompt: str, seed: int = 0) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, seed=seed)


def grey_video(prompt: str, *levels: int, seed: int = 0) -> Video:
    """One uniform frame of 32 x 48 pixels per grey level."""
    frames = [torch.full((32, 48, 3), level, dtype=torch.uint8) for level in levels]
    return Video(request(prompt, seed), torch.stack(frames))


def test_names_tell_prompt_and_seed_and_never_collide():
    requests = [
        request("A red circle, moving right!", 1001),
        request("a red circle moving RIGHT", 1001),
        request("a red circle moving right", 7),
        request("一只猫 在跑", 3),
        request("...", 4),
        request("../../etc/passwd", 5),
    ]
    assert file_names(requests) == (
        "a-red-circle-moving-right-1001.mp4",
        "a-red-circle-moving-right-1001-2.mp4",
        "a-red-circle-moving-right-7.mp4",
        "一只猫-在跑-3.mp4",
        "video-4.mp4",
        "etc-passwd-5.mp4",
    )


def test_long_prompts_give_names_that_file_systems_take():
    (latin, chinese) = file_names([request("word " * 200, 1), request("猫" * 200, 1)])
    assert len(latin.encode()) <= 200 and len(chinese.encode()) <= 200


def test_an_mp4_says_how_it_was_made(tmp_path: Path, spec: InferSpec):
    video = grey_video("猫 & dog", 10, 200)
    write_video(tmp_path / "x.mp4", video, spec)
    comment = json.loads(read_comment(tmp_path / "x.mp4"))
    assert comment["spec_hash"] == spec_hash(spec)
    assert "猫 & dog" in json.dumps(comment["request"], ensure_ascii=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_a_file_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path, spec: InferSpec):
    with pytest.raises(UserError, match=r"missing/folder/x\.mp4: can't be written: No such file"):
        write_video(tmp_path / "missing" / "folder" / "x.mp4", grey_video("grey", 0), spec)


def test_the_folder_of_videos_is_made(tmp_path: Path, spec: InferSpec):
    write_video(tmp_path / "new" / "x.mp4", grey_video("grey", 0), spec)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.mp4"]


def test_the_contact_sheet_shows_each_prompt_once_in_order_with_its_frames_in_time(tmp_path: Path):
    videos = [
        video
        for place in range(5)
        for video in (
            grey_video(f"prompt {place}", *range(40 * place, 40 * place + 9), seed=1),
            grey_video(f"prompt {place}", *[255] * 9, seed=2),
        )
    ]
    write_contact_sheet(tmp_path / "sheet.png", videos, title="sheet", columns=3, frames=3, frame_height=32)
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
    write_contact_sheet(path, [grey_video("grey", 9)], title="sheet", subtitle=line, frames=1)
    sheet = Image.open(path)
    right_margin = sheet.crop((sheet.width - MARGIN, 0, sheet.width, MARGIN + HEADING_HEIGHT))
    assert sheet.width > 300
    assert right_margin.getcolors() == [(MARGIN * (MARGIN + HEADING_HEIGHT), ImageColor.getrgb(BACKGROUND))]


@pytest.mark.parametrize(
    ("length", "count", "moments"),
    [(17, 5, [0, 4, 8, 12, 16]), (5, 5, [0, 1, 2, 3, 4]), (9, 2, [0, 8]), (1, 1, [0])],
)
def test_frames_of_a_strip_span_the_video(length: int, count: int, moments: list[int]):
    assert frame_moments(length, count) == moments

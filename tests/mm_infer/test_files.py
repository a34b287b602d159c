"""What lies in a folder afterwards: names, mp4s with their origin, the contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mm_config import spec_hash
from mm_config.schema.errors import UserError
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest
from mm_data import read_comment
from mm_infer.naming import file_names
from mm_infer.pipeline import Video
from mm_infer.writing import strips_of, write_video


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


def test_a_contact_sheet_shows_the_first_video_of_each_prompt_in_order():
    videos = [grey_video(prompt, level) for level, prompt in enumerate(("b", "a", "b", "c", "a"))]
    shown = [(strip.caption, int(strip.frames.max())) for strip in strips_of(videos)]
    assert shown == [("b", 0), ("a", 1), ("c", 3)]

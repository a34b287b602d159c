"""Comment and frames of mp4 files, read without a video library, against the library that writes them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from mm_config.stored.mp4 import comment_of, frames_digest, is_video

FRAMES = np.arange(3 * 16 * 16 * 3, dtype=np.int64).reshape(3, 16, 16, 3).astype(np.uint8)


def write(path: Path, comment: str, options: dict[str, str], frames: np.ndarray = FRAMES) -> Path:
    with av.open(str(path), mode="w", format="mp4", options=options) as container:
        container.metadata["title"] = "before"
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        stream.codec_context.options = {"x264-params": "asm=SSE4.2"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
@pytest.mark.parametrize("comment", ["", "x", '{"prompt": "猫 & dog"}', "long " * 4000])
def test_a_comment_is_read_as_the_library_reads_it(
    comment: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "x.mp4", comment, options)
    with av.open(str(path)) as container:
        assert comment_of(path) == container.metadata.get("comment", "") == comment


def test_frames_are_told_apart_from_what_is_said_of_them(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.mp4", "a", {}), write(tmp_path / "b.mp4", "b" * 999, {})
    moved = write(tmp_path / "c.mp4", "c", {"movflags": "faststart"})
    assert frames_digest(one) == frames_digest(other) == frames_digest(moved)
    assert frames_digest(write(tmp_path / "d.mp4", "a", {}, 255 - FRAMES)) != frames_digest(one)


def test_a_video_that_was_cut_short_is_none(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", "", {})
    assert is_video(whole)
    whole.write_bytes(whole.read_bytes()[:-1])
    assert not is_video(whole)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\0" * 64, b"\xff" * 64, b"\0\0\0\1moov" + b"\xff" * 8])
def test_what_is_no_mp4_has_no_comment(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    assert comment_of(tmp_path / "x.mp4") == "" and not is_video(tmp_path / "x.mp4")
    assert len(frames_digest(tmp_path / "x.mp4")) == 64


def test_a_file_that_is_cut_off_anywhere_is_read_without_an_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", "a comment", {"movflags": "faststart"}).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.mp4").write_bytes(whole[:length])
        assert comment_of(tmp_path / "cut.mp4") in ("", "a comment")

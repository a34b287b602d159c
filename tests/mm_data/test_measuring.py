"""How much the frames of two videos differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mm_config.schema import UserError
from mm_data import write_mp4
from mm_data.video.measuring import largest_difference


def grey(path: Path, *levels: int, size: int = 32) -> Path:
    write_mp4(path, np.stack([np.full((size, size, 3), level, dtype=np.uint8) for level in levels]), fps=8)
    return path


def test_the_largest_difference_of_any_pixel_is_a_share_of_255(tmp_path: Path) -> None:
    old = grey(tmp_path / "a.mp4", 100, 100, 100)
    assert largest_difference(old, grey(tmp_path / "b.mp4", 100, 100, 100)) == {"": 0.0}
    # Grey levels survive 8-bit YUV to one level or so.
    assert largest_difference(old, grey(tmp_path / "c.mp4", 100, 140, 90))[""] == pytest.approx(
        40 / 255, abs=3 / 255
    )


def test_other_shapes_have_no_difference_to_tell(tmp_path: Path) -> None:
    old = grey(tmp_path / "a.mp4", 100, 100)
    assert largest_difference(old, grey(tmp_path / "b.mp4", 100)) == {}
    assert largest_difference(old, grey(tmp_path / "c.mp4", 100, 100, size=48)) == {}


def test_what_is_no_video_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_text("nothing")
    with pytest.raises(UserError, match="can't be compared with"):
        largest_difference(grey(tmp_path / "a.mp4", 1), tmp_path / "b.mp4")

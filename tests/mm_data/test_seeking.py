"""Frames are those of the timestamps that were asked for, or the clip is bad: every frame is numbered."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_config.specs.data import Reader
from mm_data import BadClip
from mm_data.media import open_media
from mm_data.video.index import index_video
from mm_data.video.readers import reader_of
from mm_data.video.reading import read_frames
from tests.mm_data.conftest import INSTALLED, Coded

OFFSET = range(34, 74)
UNEVEN = np.cumsum(np.random.default_rng(1).integers(1, 5, 40)).tolist()
OPEN_GOP = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}

KINDS = {
    "closed GOPs with B-frames": ("a.mp4", {}),
    "no B-frames": ("a.mp4", {"options": {"x264-params": "keyint=8:bframes=0"}}),
    "one keyframe": ("a.mp4", {"options": {}}),
    "open GOPs": ("a.mp4", {"options": OPEN_GOP}),
    "x265 defaults": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=8:log-level=none"}}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "8"}}),
    "later start": ("a.mp4", {"times": OFFSET}),
    "later start, Matroska": ("a.mkv", {"times": OFFSET}),
    "later start, transport stream": ("a.ts", {"times": OFFSET, "container": "mpegts"}),
    "open GOPs, transport stream": ("a.ts", {"times": OFFSET, "container": "mpegts", "options": OPEN_GOP}),
    "variable rate": ("a.mp4", {"times": UNEVEN}),
    "variable rate, later start": ("a.mp4", {"times": [time + 48 for time in UNEVEN]}),
    "fragmented": ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "AV1": ("a.mp4", {"codec": "libsvtav1", "options": {"g": "8", "preset": "12", "svtav1-params": "rc=0"}}),
}
CUTS = {
    "cut, an edit list hides its pre-roll": {"keyframe": 16, "first": 20},
    "cut, its pre-roll is shown": {"keyframe": 16, "first": 16},
    "cut inside open GOPs": {"keyframe": 16, "first": 20, "options": OPEN_GOP},
}
TURNED = {
    "turned by 90": (0, 1, -1, 0),
    "turned by 180": (-1, 0, 0, -1),
    "turned by 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored and turned by 90": (0, 1, 1, 0),
}
WRONG_WITH_DECORD = {
    "open GOPs",
    "x265 defaults",
    "later start, transport stream",
    "open GOPs, transport stream",
    "AV1",
    *CUTS.keys() - {"cut, its pre-roll is shown"},
    "mirrored",
    "mirrored and turned by 90",
}


def written(folder: Path, coded: Coded, kind: str) -> tuple[Path, range]:
    """A clip of a kind, and the numbers that its frames show."""
    if kind in CUTS:
        cut = dict(CUTS[kind])
        source = coded.write(folder / "whole.mp4", options=cut.pop("options", None))
        return coded.cut(source, folder / "cut.mp4", **cut), range(cut["first"], 40)
    if kind in TURNED:
        return coded.write(folder / "a.mp4", matrix=TURNED[kind]), range(40)
    name, arguments = KINDS[kind]
    return coded.write(folder / name, **arguments), range(40)


def laid_back(frame: np.ndarray, kind: str) -> np.ndarray:
    """A frame as it was before it was shown turned: each pixel looked up where the matrix takes it."""
    if kind not in TURNED:
        return frame
    a, b, c, d = TURNED[kind]
    y, x = np.mgrid[:64, :128]
    column, row = a * x + c * y, b * x + d * y
    return frame[row - row.min(), column - column.min()]


@pytest.mark.parametrize("reader", INSTALLED)
@pytest.mark.parametrize("kind", [*KINDS, *CUTS, *TURNED])
def test_every_frame_alone_and_in_sets_is_the_asked_one_or_the_reader_is_refused(
    tmp_path, coded, kind, reader
):
    path, numbers = written(tmp_path, coded, kind)
    rng = np.random.default_rng(0)
    read, right, refused = reader_of(reader), 0, 0
    with open_media(path) as file:
        index = index_video(file)
        count = len(index.pts)
        assert count == len(numbers)
        size: Any = {"height": index.shown.height, "width": index.shown.width}
        alone = range(0, count, 1 if reader is Reader.PYAV else 5)
        for asked in [*([n] for n in alone), *(sorted(rng.integers(0, count, 8)) for _ in range(8))]:
            try:
                frames = read(file, index, [index.pts[n] for n in asked], **size)
            except BadClip as bad:
                assert "use the reader pyav" in bad.reason
                refused += 1
                continue
            shown = [coded.number(laid_back(frame, kind)) for frame in frames]
            assert shown == [numbers[n] for n in asked]
            right += 1
    assert refused == 0 or reader is not Reader.PYAV
    if reader is Reader.DECORD:
        assert (right == 0) is (kind in WRONG_WITH_DECORD)
        if right:
            with open_media(path) as file:
                theirs = read(file, index, index.pts, **size)
                np.testing.assert_array_equal(theirs, read_frames(file, index, index.pts, **size))


def test_a_clip_is_held_once_while_its_frames_are_decoded(tmp_path, coded):
    """Beside the frames that are returned there are one that was decoded and one that is turned."""
    path = coded.write(tmp_path / "a.mp4", matrix=TURNED["mirrored and turned by 90"])
    with open_media(path) as file:
        index = index_video(file)
        wanted = [index.pts[n // 4] for n in range(160)]
        tracemalloc.start()
        frames = read_frames(file, index, wanted, height=512, width=256)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert frames.nbytes < peak < frames.nbytes * 1.2

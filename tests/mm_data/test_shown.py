"""What is read is what a player shows: turned, mirrored, with square pixels."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from mm_data import BadClip
from mm_data.media import open_media
from mm_data.video.index import VideoIndex, index_video
from mm_data.video.reading import read_frames

TALL, WIDE, COUNT = 32, 64, 12


def picture() -> np.ndarray:
    """A picture that looks different each way round: a light corner, a grey edge, the rest dark."""
    pixels = np.full((TALL, WIDE, 3), 20, np.uint8)
    pixels[:16, :16] = 230
    pixels[:16, 16:32] = 120
    return pixels


def write(
    path: Path, turned: Callable[[VideoStream], None] = lambda _: None, aspect: Fraction = Fraction(1)
) -> Path:
    """Equal frames, with what a test sets on the stream."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=24)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDE, TALL, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        turned(stream)
        for _ in range(COUNT):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        output.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[VideoIndex, np.ndarray]:
    """A file's index, and its frames at the size at which they are shown."""
    with open_media(path) as file:
        index = index_video(file)
        shown = index.shown
        return index, read_frames(file, index, index.pts, height=shown.height, width=shown.width)


def shown_by_hand(matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Every pixel put where `(x, y) -> (a x + c y, b x + d y)` takes it, one by one."""
    a, b, c, d = matrix
    places = [(a * x + c * y, b * x + d * y) for y in range(TALL) for x in range(WIDE)]
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    right, bottom = (max(place[axis] for place in places) for axis in (0, 1))
    shown = np.zeros((bottom - top + 1, right - left + 1, 3), np.uint8)
    for (x, y), pixel in zip(places, picture().reshape(-1, 3), strict=True):
        shown[y - top, x - left] = pixel
    return shown


WAYS_ROUND = [
    (1, 0, 0, 1),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (-1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, 1, 0),
    (0, 1, -1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("matrix", WAYS_ROUND)
def test_all_eight_ways_round_are_turned_and_mirrored_as_shown(tmp_path, matrix, suffix):
    a, b, c, d = (entry << 16 for entry in matrix)
    path = write(
        tmp_path / f"a.{suffix}", lambda stream: stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
    )
    index, frames = read(path)
    expected = shown_by_hand(matrix)
    assert (index.shown.height, index.shown.width) == expected.shape[:2]
    assert np.abs(frames[0].astype(int) - expected).max() < 30
    assert np.abs(np.median(frames[0], axis=(0, 1)) - 20).max() < 5


def test_a_picture_turned_by_half_a_right_angle_is_a_bad_clip(tmp_path):
    path = write(tmp_path / "a.mp4", lambda stream: stream.set_display_rotation(45))
    with pytest.raises(BadClip, match="to be turned by 45 degrees"):
        read(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 85), (Fraction(8, 9), 57), (Fraction(1), 64)])
def test_pixels_are_square_as_shown(tmp_path, suffix, aspect, width):
    """64 stored columns of 4:3 are 85 1/3 wide."""
    _, frames = read(write(tmp_path / f"a.{suffix}", aspect=aspect))
    assert frames.shape == (COUNT, 32, width, 3)
    light = frames[0, 4:12].mean(axis=(0, 2)) > 175
    assert abs(light.sum() - 16 * aspect) <= 1


def test_pixels_that_are_not_square_are_squared_before_turning(tmp_path):
    def turned(stream: VideoStream) -> None:
        stream.set_display_rotation(90)

    index, _ = read(write(tmp_path / "a.mp4", turned, Fraction(2)))
    assert (index.shown.height, index.shown.width) == (128, 32)

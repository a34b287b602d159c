"""Pictures are clips of one frame, as Pillow's own reading of what was written shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm_data import BadClip
from mm_data.media import open_media
from mm_data.video.index import VideoIndex, index_video
from mm_data.video.readers import indexer_of, reader_of
from tests.mm_data.conftest import INSTALLED

HEIGHT, WIDTH = 24, 40
KINDS = [("a.png", {}), ("a.webp", {"lossless": True}), ("a.jpg", {"quality": 95, "subsampling": 0})]
ORIENTATION = 0x0112
PLAIN = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
PLAIN[:8, :8] = (250, 40, 40)
PLAIN[8:, 20:] = np.linspace(0, 255, 20, dtype=np.uint8)[None, :, None]
TURNED = {
    1: PLAIN,
    2: PLAIN[:, ::-1],
    3: PLAIN[::-1, ::-1],
    4: PLAIN[::-1],
    5: PLAIN.swapaxes(0, 1),
    6: PLAIN[::-1].swapaxes(0, 1),
    7: PLAIN[::-1, ::-1].swapaxes(0, 1),
    8: PLAIN[:, ::-1].swapaxes(0, 1),
}
"""How a picture is shown by what its EXIF says (JEITA CP-3451, table of Orientation)."""


def read(path: Path) -> tuple[VideoIndex, np.ndarray]:
    with open_media(path) as file:
        index = index_video(file)
        shown = index.shown
        return index, reader_of(INSTALLED[0])(file, index, [0], height=shown.height, width=shown.width)


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_shown_as_their_exif_says(tmp_path, name, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(PLAIN).save(tmp_path / name, exif=exif, **options)
    index, frames = read(tmp_path / name)
    assert index.still and index.pts == (0,) and index.seconds == 0
    assert frames.shape == (1, index.shown.height, index.shown.width, 3)
    assert np.abs(frames[0].astype(int) - TURNED[orientation]).max() <= (12 if name == "a.jpg" else 0)


@pytest.mark.parametrize(("name", "options"), KINDS[:2])
def test_alpha_is_composed_on_black(tmp_path, name, options):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, 20:], alpha[:8, :8] = 255, 128
    Image.fromarray(np.dstack([PLAIN, alpha])).save(tmp_path / name, exact=True, **options)
    expected = np.rint(PLAIN * (alpha[..., None] / 255))
    np.testing.assert_array_equal(read(tmp_path / name)[1][0], expected)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_pictures_of_other_modes_are_read(tmp_path, mode):
    grey = np.repeat(PLAIN[..., :1], 3, axis=2)
    if mode == "I;16":
        image = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode, dither=Image.Dither.NONE)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    expected = np.where(grey >= 128, 255, 0) if mode == "1" else grey
    assert np.abs(read(path)[1][0].astype(int) - expected).max() <= {"P": 26, "CMYK": 26}.get(mode, 0)


@pytest.mark.parametrize("reader", INSTALLED)
@pytest.mark.parametrize("isolated", [False, True])
def test_each_reader_reads_pictures_and_repeats_them(tmp_path, reader, isolated):
    Image.fromarray(PLAIN).save(tmp_path / "a.png")
    with open_media(tmp_path / "a.png") as file:
        index = indexer_of(isolated)(file)
        frames = reader_of(reader, isolated)(file, index, [0, 0], height=HEIGHT, width=WIDTH)
    np.testing.assert_array_equal(frames, np.stack([PLAIN, PLAIN]))


def test_a_jpeg_with_a_depth_map_shows_its_first_picture(tmp_path):
    depth = Image.new("L", (WIDTH, HEIGHT), 200)
    path = tmp_path / "a.jpg"
    Image.fromarray(PLAIN).save(path, "MPO", save_all=True, append_images=[depth], quality=95)
    assert np.abs(read(path)[1][0].astype(int) - PLAIN).mean() < 3


def test_animations_bombs_and_damage_are_bad_clips(tmp_path):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), level, np.uint8)) for level in (0, 90, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(BadClip, match="an animation of 3 frames"):
        read(tmp_path / "a.webp")
    Image.new("1", (8_000, 8_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(BadClip, match="8000x8000 pixels are more than"):
        read(tmp_path / "bomb.png")
    for name, options in KINDS:
        Image.fromarray(PLAIN).save(tmp_path / name, **options)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadClip):
            read(tmp_path / name)

"""Pixels are what the standards' formulas make of a clip's samples, whatever its matrix, range and depth."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from mm_config.specs.data import Reader
from mm_data import BadClip
from mm_data.media import open_media
from mm_data.video.index import index_video
from mm_data.video.readers import reader_of

SIZE, BLOCK, COUNT = 64, 16, 6
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
"""Kr and Kb of BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance)."""
LIMITED, FULL = 1, 2
FLAT = slice(5, 11)
"""Away from the edges of blocks, which chroma of half the size blurs."""


def blocks(low: int, high: int, seed: int) -> np.ndarray:
    """A plane of flat blocks, 8-bit samples."""
    values = np.random.default_rng(seed).integers(low, high, (SIZE // BLOCK, SIZE // BLOCK))
    return np.kron(values, np.ones((BLOCK, BLOCK), int)).astype(np.uint8)


Y, U, V = blocks(70, 170, 0), blocks(104, 152, 1), blocks(104, 152, 2)


def formula(kr: float, kb: float, full: bool) -> np.ndarray:
    """R'G'B' from 0 to 255 of the planes: ITU-R BT.709-6, items 3.2 to 3.6, and its like."""
    if full:
        y, u, v = Y / 255, (U - 128.0) / 255, (V - 128.0) / 255
    else:
        y, u, v = (Y - 16.0) / 219, (U - 128.0) / 224, (V - 128.0) / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=-1) * 255, 0, 255)


def furthest(pixels: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference within blocks."""
    grid = (SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK, 3)
    return float(np.abs(pixels.astype(float) - expected).reshape(grid)[:, FLAT, :, FLAT].max())


def write(
    path: Path, codec: str, pixels: str, *, matrix: int = 2, extent: int = 0, transfer: int = 2
) -> Path:
    """Writes the planes, with what a stream says of them in the numbers of H.273."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=24)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, pixels
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc = matrix, extent, transfer
        context.options = {"crf": "2", "preset": "12"} if codec == "libsvtav1" else {"crf": "2"}
        if codec == "libx265":
            context.options = {"crf": "2", "x265-params": "log-level=none"}
        frame = av.VideoFrame(SIZE, SIZE, "yuv444p")
        for plane, samples in zip(frame.planes, (Y, U, V), strict=True):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, :SIZE] = samples
            plane.update(rows.tobytes())
        frame.colorspace, frame.color_range = matrix, extent
        for number in range(COUNT):
            stored = frame.reformat(format=pixels)
            stored.pts, stored.time_base = number, Fraction(1, 24)
            output.mux(stream.encode(stored))
        output.mux(stream.encode(None))
    return path


def read(path: Path, reader: Reader = Reader.PYAV, size: int = SIZE) -> np.ndarray:
    with open_media(path) as file:
        index = index_video(file)
        return reader_of(reader)(file, index, index.pts[1:2], height=size, width=size)[0]


@pytest.mark.parametrize("reader", [Reader.PYAV, Reader.DECORD])
@pytest.mark.parametrize("extent", [0, LIMITED, FULL])
@pytest.mark.parametrize(("matrix", "weights"), [(2, BT601), (1, BT709), (5, BT601), (6, BT601), (9, BT2020)])
def test_matrix_and_range_are_those_of_the_tags(tmp_path, matrix, weights, extent, reader):
    path = write(tmp_path / "a.mp4", "libx264", "yuv420p", matrix=matrix, extent=extent)
    kr, kb = weights
    assert furthest(read(path, reader), formula(kr, kb, extent == FULL)) < 4


def test_resizing_keeps_the_colours(tmp_path):
    path = write(tmp_path / "a.mp4", "libx264", "yuv420p", matrix=1, extent=FULL)
    assert furthest(read(path, size=2 * SIZE)[::2, ::2], formula(*BT709, True)) < 4


DEEP = [
    ("libx264", "yuv420p10le", "mp4"),
    ("libx265", "yuv420p10le", "mkv"),
    ("libsvtav1", "yuv420p10le", "mp4"),
]
OTHERS = [("libx264", "yuv422p", "mp4"), ("libx264", "yuv444p10le", "mkv"), ("libx265", "yuv420p12le", "mp4")]


@pytest.mark.parametrize("extent", [LIMITED, FULL])
@pytest.mark.parametrize(("codec", "pixels", "container"), [*DEEP, *OTHERS])
def test_deeper_samples_and_more_chroma_are_read_right(tmp_path, codec, pixels, container, extent):
    path = write(tmp_path / f"a.{container}", codec, pixels, matrix=1, extent=extent)
    assert furthest(read(path), formula(*BT709, extent == FULL)) < 4


@pytest.mark.parametrize(("transfer", "name"), [(16, r"PQ \(SMPTE ST 2084\)"), (18, r"HLG \(ARIB STD-B67\)")])
def test_hdr_is_refused_by_name(tmp_path, transfer, name):
    path = write(tmp_path / "a.mp4", "libx265", "yuv420p10le", matrix=9, extent=LIMITED, transfer=transfer)
    with pytest.raises(BadClip, match=f"its colours are HDR, {name}, which isn't read; convert it to SDR"):
        read(path)


def test_alpha_is_composed_on_black(tmp_path):
    """Half of the picture is half seen, a quarter not at all; decord would show all, so it is refused."""
    rgba = np.full((SIZE, SIZE, 4), 200, np.uint8)
    rgba[:, :32, 3], rgba[:, 32:, 3], rgba[:32, 32:, 3] = 128, 255, 0
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=24)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuva420p"
        stream.codec_context.options = {"auto-alt-ref": "0"}
        for _ in range(COUNT):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            output.mux(stream.encode(frame.reformat(format="yuva420p")))
        output.mux(stream.encode(None))
    seen = read(path)
    assert np.abs(seen[:, 4:28].astype(int) - 100).max() < 4
    assert seen[4:28, 36:60].max() < 4
    assert np.abs(seen[36:60, 36:60].astype(int) - 200).max() < 4
    with pytest.raises(BadClip, match="decord can't be trusted with alpha"):
        read(path, Reader.DECORD)

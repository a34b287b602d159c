"""Real video files whose every frame says which one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import attrs
import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from mm_config.schema import UserError
from mm_config.specs.data import DataSpec, Reader
from mm_config.specs.datasets import ManifestSpec, ShapesSpec
from mm_data import Dataset, Record, prepare
from mm_data.video.reading_torchcodec import require_torchcodec

INSTALLED = [Reader.PYAV, Reader.DECORD]
"""The readers that can be imported: torchcodec needs an FFmpeg on the system."""
if find_spec("torchcodec"):
    with suppress(UserError):
        INSTALLED.append(require_torchcodec() and Reader.TORCHCODEC)
HEIGHT, WIDTH, BITS = 64, 128, 8
CLOSED_GOP = "keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0"


def coded_frame(number: int) -> np.ndarray:
    """A frame whose upper half shows a number as 8 blocks, dark for 0 and light for 1."""
    frame = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    for bit in range(BITS):
        frame[:32, bit * 16 : bit * 16 + 16] = 220 if number >> bit & 1 else 30
    frame[32:] = np.random.default_rng(number).integers(0, 255, (1, WIDTH, 1))
    return frame


@attrs.frozen
class Coded:
    """How coded clips are written, cut and read."""

    height: int = HEIGHT
    width: int = WIDTH

    def number(self, frame: np.ndarray) -> int:
        """The number that a decoded frame shows."""
        blocks = frame[8:24].reshape(16, BITS, 16, 3)[:, :, 4:12].mean(axis=(0, 2, 3))
        return sum(1 << bit for bit in range(BITS) if blocks[bit] > 125)

    def write(
        self,
        path: Path,
        times: Sequence[int] = range(40),
        *,
        codec: str = "libx264",
        container: str | None = None,
        options: dict[str, str] | None = None,
        movflags: str = "",
        matrix: Sequence[int] = (),
    ) -> Path:
        """Writes one frame per entry of `times`, in units of 1/24 s; `matrix` is `a b c d` of its display."""
        muxed = {"movflags": movflags} if movflags else {}
        with av.open(str(path), "w", format=container, options=muxed) as output:
            stream = output.add_stream(codec, rate=24)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            stream.codec_context.options = {"x264-params": CLOSED_GOP} if options is None else options
            stream.codec_context.time_base = Fraction(1, 24)
            if matrix:
                a, b, c, d = (entry << 16 for entry in matrix)
                stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(coded_frame(number), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 24)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    def cut(self, source: Path, path: Path, keyframe: int, first: int) -> Path:
        """Copies packets from a keyframe on; an edit list hides the frames before `first`."""
        options = {"avoid_negative_ts": "disabled"}
        with av.open(str(source)) as opened, av.open(str(path), "w", format="mp4", options=options) as output:
            stream = opened.streams.video[0]
            copied = output.add_stream_from_template(stream)
            assert stream.time_base is not None
            ticks = Fraction(1, 24) / stream.time_base
            opened.seek(int(keyframe * ticks), stream=stream)
            for packet in opened.demux(stream):
                if packet.size:
                    assert packet.pts is not None and packet.dts is not None
                    packet.stream = copied
                    packet.pts -= int(first * ticks)
                    packet.dts -= int(first * ticks)
                    output.mux(packet)
        return path


@pytest.fixture(scope="session")
def coded() -> Coded:
    return Coded()


@pytest.fixture(scope="session")
def data_spec() -> Callable[..., DataSpec]:
    """A `DataSpec` over coded clips, with fields changed by keyword."""

    def make(**changes: object) -> DataSpec:
        spec = DataSpec(
            dataset=ManifestSpec(name="coded"),
            batch_size=4,
            num_frames=9,
            height=HEIGHT,
            width=WIDTH,
            fps=24.0,
            workers=2,
        )
        return attrs.evolve(spec, **changes)

    return make


@pytest.fixture(scope="session")
def coded_dataset(tmp_path_factory: pytest.TempPathFactory, coded: Coded) -> Dataset:
    """Ten real clips; clip `n` starts with the number `n`."""
    folder = tmp_path_factory.mktemp("coded")
    whole = coded.write(folder / "whole.mp4", options={"x264-params": "keyint=1"})
    records = []
    for number in range(10):
        path = coded.cut(whole, folder / f"{number}.mp4", keyframe=number, first=number)
        records.append(Record(path, f"clip {number}"))
    return Dataset(folder, tuple(records), "digest")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Held-out rendered clips: four of each caption, by another seed than any experiment's."""
    return prepare(ShapesSpec(seed=77, clips_per_caption=4), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[[str], Path]:
    """Writes lines into a manifest beside the test's own files."""

    def write(text: str) -> Path:
        path = tmp_path / "manifest.jsonl"
        path.write_text(text, encoding="utf-8")
        return path

    return write

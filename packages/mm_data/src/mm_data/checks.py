"""What `mm doctor` asks of this package: H.264 written and read back, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mm_config.doctor import BROKEN, OK, Check, Checks, DoctorOptions

if TYPE_CHECKING:
    import numpy as np

SIZE = 64
LEVELS = (30, 90, 150, 210)
"""The grey of each frame: far enough apart that none is taken for another after compression."""
NEAR = 8


def reader_pyav(_: DoctorOptions) -> Iterator[Check]:
    """Whether PyAV writes H.264 and reads each frame back by its timestamp."""
    from mm_data.video.reading import read_frames

    yield round_trip("pyav", "av", read_frames)


def reader_decord(_: DoctorOptions) -> Iterator[Check]:
    """Whether decord, where it is installed, reads the same frames."""
    from mm_data.video.isolated import DECORD, isolated

    if find_spec("decord"):
        yield round_trip("decord", "decord", isolated(DECORD))


def round_trip(name: str, library: str, read: Callable[..., np.ndarray]) -> Check:
    """Writes grey frames as H.264 and has a reader read them."""
    import numpy as np

    from mm_data.video.index import index_video
    from mm_data.video.writing import write_mp4

    frames = np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in LEVELS])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, frames, fps=8)
        with path.open("rb") as file:
            index = index_video(file)
            got = read(file, index, index.pts, height=SIZE, width=SIZE)
    if got.shape != frames.shape or np.abs(got.astype(int) - frames).max() > NEAR:
        return Check(f"reader {name}", BROKEN, f"{version(library)} reads other frames than were written")
    return Check(f"reader {name}", OK, f"{version(library)}, H.264 written and read back")


CHECKS: Checks = (reader_pyav, reader_decord)

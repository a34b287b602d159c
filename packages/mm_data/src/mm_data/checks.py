"""What `mm doctor` asks of this package: H.264 written and read back, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mm_config.doctor import BROKEN, OK, Check, Checks, DoctorOptions
from mm_config.schema import UserError
from mm_config.specs import Reader

if TYPE_CHECKING:
    from mm_data.video.readers import ReadFrames

SIZE = 64
LEVELS = (30, 90, 150, 210)
"""The grey of each frame: far enough apart that none is taken for another after compression."""
NEAR = 8


def readers(_: DoctorOptions) -> Iterator[Check]:
    """Whether each library that is installed reads what PyAV writes, frame by frame."""
    for reader in Reader:
        library = "av" if reader is Reader.PYAV else reader.value
        if find_spec(library):
            yield _tried(reader.value, library, reader)


def reader_isolated(_: DoctorOptions) -> Iterator[Check]:
    """Whether a process with limits and without network, as `data.isolated` wants it, reads frames."""
    yield _tried("isolated", "av", Reader.PYAV, isolated=True)


def _tried(name: str, library: str, reader: Reader, isolated: bool = False) -> Check:
    from mm_data.video.readers import reader_of

    try:
        return round_trip(name, library, reader_of(reader, isolated))
    except UserError as error:
        return Check(f"reader {name}", BROKEN, str(error))


def round_trip(name: str, library: str, read: ReadFrames) -> Check:
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


CHECKS: Checks = (readers, reader_isolated)

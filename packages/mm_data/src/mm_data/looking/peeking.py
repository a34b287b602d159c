"""One look at a clip: its middle frame as a small picture, what it measures, or why it can't be read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import attrs
from PIL import Image

from mm_config.console import progress
from mm_config.schema import UserError
from mm_config.specs import Reader
from mm_data.bad import BadClip
from mm_data.looking.likeness import difference_hash
from mm_data.looking.subject import Subject
from mm_data.media import open_media
from mm_data.records import Measured, Record
from mm_data.remote import allowed_by
from mm_data.video.index import VideoIndex
from mm_data.video.limits import failure
from mm_data.video.readers import indexer_of, reader_of

PICTURE = (240, 160)
"""Width and height that a small picture fits into."""
QUALITY = 72
"""Of JPEG."""


@attrs.frozen
class Peek:
    """What a look at a clip found."""

    index: int
    """Its place in the dataset."""
    record: Record
    """The clip."""
    measured: Measured | None = None
    """What it measures, unless it can't be read."""
    picture: bytes = b""
    """A JPEG of the middle frame, no larger than `PICTURE`; empty of a clip that can't be read."""
    looks: int | None = None
    """The difference hash of the middle frame; None where that shows nothing."""
    bad: str = ""
    """Why it can't be read."""


def peek_into(subject: Subject, indices: Sequence[int]) -> list[Peek]:
    """Looks at some clips, in their order.

    Args:
        subject: Whose clips. Its data says on how many threads, and whether in processes with limits.
        indices: Which of them.

    Raises:
        UserError: A record is wrong, or the machine can't read clips.
    """
    records, data = subject.dataset.records, subject.data
    remote, apart = allowed_by(subject.spec), data is not None and data.isolated
    with (
        ThreadPoolExecutor(data.workers if data else 2) as pool,
        progress("look at clips", len(indices), "clip", 50) as bar,
    ):
        found = pool.map(lambda index: peek(records[index], index, remote, isolated=apart), indices)
        return [one for one in found if bar.advance(1) is None]


def peek(record: Record, index: int, remote: Sequence[str] = (), *, isolated: bool = False) -> Peek:
    """Looks at one clip.

    Args:
        record: The clip.
        index: Its place in the dataset.
        remote: Where clips may be read from over the network.
        isolated: Whether it is decoded in a process with limits.

    Raises:
        UserError: The machine can't read clips.
    """
    try:
        measured, picture = _middle(record, remote, isolated)
    except UserError:
        raise
    except Exception as error:  # Decoders raise nearly anything on damaged files.
        bad = error if isinstance(error, BadClip) else failure(error)
        return Peek(index, record, bad=str(bad))
    looks = difference_hash(picture)
    picture.thumbnail(PICTURE, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return Peek(index, record, record.measured or measured, file.getvalue(), looks)


def _middle(record: Record, remote: Sequence[str], isolated: bool) -> tuple[Measured, Image.Image]:
    with open_media(record.path, record.part, record.url, remote) as file:
        index = indexer_of(isolated)(file)
        first, end = record.cut or (0, len(index.pts))
        wanted = index.pts[min((first + end) // 2, len(index.pts) - 1)]
        read = reader_of(Reader.PYAV, isolated)
        (frame,) = read(file, index, [wanted], height=index.shown.height, width=index.shown.width)
    if record.crop:
        top, left, height, width = record.crop
        frame = frame[top : top + height, left : left + width]
    return _measured(index, end - first, *frame.shape[:2]), Image.fromarray(frame)


def _measured(index: VideoIndex, num_frames: int, height: int, width: int) -> Measured:
    fps = Fraction(len(index.pts)) / index.seconds if index.seconds else Fraction(0)
    return Measured(num_frames, fps, height, width)

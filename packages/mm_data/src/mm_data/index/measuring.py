"""What a clip's file holds, found once by demuxing: what a plan, a reader and a report ask of it later."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, BinaryIO

import attrs

from mm_data.video.index import VideoIndex
from mm_data.video.readers import indexer_of


@attrs.frozen
class Media:
    """A file, or a part of a shard, as it was measured."""

    sha256: str
    """Of its bytes."""
    size: int
    """Bytes."""
    state: str
    """Size and times of change of the file when it was measured; empty where nobody can say."""
    container: str
    """FFmpeg's name of the file format."""
    codec: str
    """FFmpeg's name of the codec."""
    num_frames: int
    """Frames that are shown; 1 of an image."""
    seconds: Fraction
    """From the start of the first frame to the end of the last; 0 of an image."""
    height: int
    """Of a shown frame, upright and with square pixels."""
    width: int
    """Of a shown frame, upright and with square pixels."""
    turns: int
    """Quarter turns that its frames are shown by."""
    mirrored: bool
    """Whether its frames are shown mirrored."""
    variable: bool
    """Whether its frames are not equally far apart."""
    gop: int
    """The most frames from one at which decoding can start to the next."""
    open_gop: bool
    """Whether some frame is shown before the keyframe that precedes it in the file."""
    edited: bool
    """Whether an edit list hides frames that are in the file."""
    pts_sha256: str
    """Of the timestamps in seconds, one fraction a line."""

    @property
    def fps(self) -> Fraction:
        """Frames by seconds; 0 of an image."""
        return self.num_frames / self.seconds if self.seconds else Fraction(0)

    @property
    def is_image(self) -> bool:
        """Whether it is one picture, which lasts no time."""
        return not self.seconds


def measure(file: BinaryIO, *, sha256: str, size: int, state: str, isolated: bool = False) -> Media:
    """Measures a clip.

    Args:
        file: The open clip, of which only the video's packets and its first picture are looked at.
        sha256: Of its bytes.
        size: Its bytes.
        state: As `file_state` says it.
        isolated: Whether it is looked at in a process with limits.

    Raises:
        BadClip: It can't be read, or no limit allows it.
    """
    index = indexer_of(isolated)(file)
    return Media(
        sha256=sha256,
        size=size,
        state=state,
        container=index.container,
        codec=index.codec,
        num_frames=len(index.pts),
        seconds=index.seconds,
        height=index.shown.height,
        width=index.shown.width,
        turns=index.shown.turns,
        mirrored=index.shown.mirrored,
        variable=is_variable(index.pts),
        gop=longest_gop(index),
        open_gop=index.open_gop,
        edited=index.edited,
        pts_sha256=_digest_of_times(index),
    )


def is_variable(pts: Sequence[int]) -> bool:
    """Whether frames are not equally far apart, beyond what rounding timestamps to their unit makes of it.

    Rounding moves a distance by one unit at most; where one unit is a large part of the distance, as in a
    time base of frames, it is no rounding.
    """
    steps = [later - earlier for earlier, later in pairwise(pts)]
    if not steps:
        return False
    spread = max(steps) - min(steps)
    return spread > 1 or spread * 4 > min(steps)


def longest_gop(index: VideoIndex) -> int:
    """The most frames from a keyframe to before the next, or to the end."""
    starts = sorted({0, *(bisect_left(index.pts, pts) for pts in index.keyframes)})
    return max(later - earlier for earlier, later in pairwise([*starts, len(index.pts)]))


def as_json(media: Media) -> dict[str, Any]:
    """What a journal keeps."""
    return {**attrs.asdict(media), "seconds": str(media.seconds)}


def from_json(content: dict[str, Any]) -> Media:
    """What a journal kept. Raises TypeError, ValueError, LookupError or ArithmeticError where it is none."""
    media = Media(**{**content, "seconds": Fraction(content["seconds"])})
    numbers = (media.size, media.num_frames, media.height, media.width, media.gop)
    if not all(type(number) is int and number > 0 for number in numbers) or media.seconds < 0:
        raise ValueError("numbers that no clip has")
    return media


def _digest_of_times(index: VideoIndex) -> str:
    digest = hashlib.sha256()
    for pts in index.pts:
        digest.update(f"{pts * index.time_base}\n".encode())
    return digest.hexdigest()

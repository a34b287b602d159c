"""What a video file holds, found by demuxing alone: the timestamp of every frame.

FFmpeg never sees a path or a string from a manifest, which it would interpret (`http:`, `concat:`,
`subfile:`): files are opened here and handed over as file objects, with allow-lists of formats, codecs and
protocols.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import attrs
import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from mm_data.bad import BadClip

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts"
CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})
MAX_PIXELS = 8192 * 4320


@attrs.frozen
class VideoIndex:
    """The frames of one video stream, in the order in which they are shown."""

    pts: tuple[int, ...]
    """Presentation timestamps, in units of `time_base`."""
    keyframes: tuple[int, ...]
    """Timestamps of the frames at which decoding can start."""
    time_base: Fraction
    """Seconds per unit."""
    seconds: Fraction
    """From the start of the first frame to the end of the last."""
    container: str
    """FFmpeg's name of the file format."""
    open_gop: bool
    """Whether some frame is shown before the keyframe that precedes it in the file."""
    edited: bool
    """Whether an edit list hides frames that are in the file."""


def open_video(path: Path) -> BinaryIO:
    """Opens a regular file.

    Raises:
        BadClip: There is none.
    """
    if not path.is_file():
        raise BadClip("open", "no such file" if not path.exists() else "not a regular file")
    try:
        return path.open("rb")
    except OSError as error:
        raise BadClip("open", error.strerror or str(error)) from error


@contextmanager
def demuxer(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A container and its video stream, decoding in one thread; closed at the end.

    Raises:
        BadClip: FFmpeg can't read the file (also while the context is open), or a limit forbids it.
    """
    file.seek(0)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "", "codec_whitelist": ",".join(CODECS)}
    try:
        with av.open(file, mode="r", options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise BadClip("index", "no video stream")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context.name not in CODECS:
                raise BadClip("index", f"codec {context.name} is not allowed")
            if context.width * context.height > MAX_PIXELS:
                raise BadClip("index", f"{context.width}x{context.height} pixels are more than {MAX_PIXELS}")
            context.thread_count = 1
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise BadClip("decode", error.strerror or str(error)) from error


def index_video(file: BinaryIO) -> VideoIndex:
    """Reads the timestamps of all frames without decoding any.

    Raises:
        BadClip: No frames, a frame without a timestamp or with another's, or a damaged packet.
    """
    pts: list[int] = []
    keyframes: list[int] = []
    duration = 0
    open_gop = edited = False
    with demuxer(file) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise BadClip("index", f"damaged packet after {len(pts)} frames")
            if packet.pts is None:
                raise BadClip("index", f"frame {len(pts)} has no timestamp")
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            open_gop |= bool(keyframes) and packet.pts < keyframes[-1]
            if packet.is_discard:
                edited = True
                continue
            if not pts or packet.pts > max(pts[-1], 0):
                duration = packet.duration or duration
            pts.append(packet.pts)
        time_base, name = stream.time_base, container.format.name
    if not pts or not keyframes or time_base is None:
        raise BadClip("index", "no frames")
    pts.sort()
    if len(set(pts)) != len(pts):
        raise BadClip("index", "two frames have the same timestamp")
    last = duration or (pts[-1] - pts[-2] if len(pts) > 1 else 0)
    return VideoIndex(
        pts=tuple(pts),
        keyframes=tuple(sorted(keyframes)),
        time_base=time_base,
        seconds=(pts[-1] + last - pts[0]) * time_base,
        container=name,
        open_gop=open_gop,
        edited=edited,
    )

"""What a video file holds, found by demuxing: the timestamp of every frame, and how frames are shown.

FFmpeg never sees a path or a string from a manifest, which it would interpret (`http:`, `concat:`,
`subfile:`): files are opened here and handed over as file objects, with allow-lists of formats, codecs and
protocols.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import attrs
import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from mm_config.durable import open_regular
from mm_data.bad import BadClip
from mm_data.video import limits
from mm_data.video.limits import MAX_FRAMES, MAX_PIXELS, Watched, failure, fault_of
from mm_data.video.shown import Shown, shown_size

ALLOWED = "mp4, mov, mkv, webm and MPEG transport streams are read"
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts"
CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})
DECODERS = ",".join((*sorted(CODECS), "libdav1d"))
"""The codecs' decoders in FFmpeg, of which libdav1d is AV1's."""
OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"RIFF": "an AVI or a WebP",
    b"FLV": "an FLV",
    b"0&\xb2u": "an ASF (WMV)",
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG": "a PNG",
    b"OggS": "an Ogg",
    b"\x00\x00\x01\xba": "an MPEG program stream",
    b"#EXTM3U": "a playlist",
}
"""What files that are not allowed begin with."""


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
    codec: str
    """FFmpeg's name of the codec."""
    open_gop: bool
    """Whether some frame is shown before the keyframe that precedes it in the file."""
    edited: bool
    """Whether an edit list hides frames that are in the file."""
    shown: Shown
    """What becomes of a stored picture before it is seen, and its size then."""


def open_video(path: Path) -> BinaryIO:
    """Opens a regular file.

    Raises:
        BadClip: There is none.
    """
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        raise BadClip("open", "no such file") from error
    except OSError as error:
        raise BadClip("open", error.strerror or str(error), fault_of(error)) from error


@contextmanager
def demuxer(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A container and its video stream, decoding in one thread; closed at the end.

    Raises:
        BadClip: FFmpeg can't read the file (also while the context is open), or a limit forbids it.
    """
    watched = Watched(file, time.monotonic() + limits.CLIP_SECONDS)
    try:
        with _opened(watched) as container:
            if not container.streams.video:
                raise BadClip("index", "no video stream")
            stream = container.streams.video[0]
            _check(stream)
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise BadClip("decode", error.strerror or str(error), fault_of(error)) from error
    finally:
        if watched.errors:
            raise failure(watched.errors[0])


def _opened(file: Watched) -> InputContainer:
    """Raises BadClip where the file is empty or of another format, FFmpegError where FFmpeg can't read it."""
    file.seek(0)
    head = file.read(16)
    if not head:
        raise BadClip("open", "the file is empty")
    name = next((name for start, name in OTHER_FORMATS.items() if head.startswith(start)), None)
    if name is not None:
        raise BadClip("open", f"the file is {name}; {ALLOWED}")
    file.seek(0)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "", "codec_whitelist": DECODERS}
    try:
        return av.open(file, mode="r", options=options, metadata_errors="replace")
    except ArgumentError as error:  # What FFmpeg says of a format that is not on the list.
        raise BadClip("open", f"its format is another; {ALLOWED}") from error


def _check(stream: VideoStream) -> None:
    """Raises BadClip where a stream's codec is not allowed, or it declares more than is allowed."""
    # PyAV gives none where FFmpeg doesn't know the codec; its annotations say otherwise.
    context: VideoCodecContext | None = stream.codec_context
    if context is None:
        raise BadClip("index", "FFmpeg doesn't know its codec")
    if (codec := context.codec.canonical_name) not in CODECS:
        raise BadClip("index", f"codec {codec} is not allowed")
    if context.width * context.height > MAX_PIXELS:
        raise BadClip("index", f"{context.width}x{context.height} pixels are more than {MAX_PIXELS}")
    if stream.frames > MAX_FRAMES:
        raise BadClip("index", f"{stream.frames} frames are more than {MAX_FRAMES}")
    context.thread_count = 1
    # Pictures may be larger than the file's header says.
    context.options = {"max_pixels": str(MAX_PIXELS)}


def index_video(file: BinaryIO) -> VideoIndex:
    """Reads the timestamps of all frames, and decodes the first keyframe, which tells how frames are shown.

    Raises:
        BadClip: No frames, a frame without a timestamp or with another's, a damaged packet, or pictures that
            can't be shown (HDR).
    """
    pts: list[int] = []
    keyframes: list[int] = []
    duration = 0
    open_gop = edited = False
    shown: Shown | None = None
    with demuxer(file) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise BadClip("index", f"damaged packet after {len(pts)} frames")
            if packet.pts is None:
                raise BadClip("index", f"frame {len(pts)} has no timestamp")
            if packet.is_keyframe:
                shown = shown or _shown(stream, packet)
                keyframes.append(packet.pts)
            open_gop |= bool(keyframes) and packet.pts < keyframes[-1]
            if packet.is_discard:
                edited = True
                continue
            if not pts or packet.pts > max(pts[-1], 0):
                duration = packet.duration or duration
            pts.append(packet.pts)
            if len(pts) > MAX_FRAMES:
                raise BadClip("index", f"more than {MAX_FRAMES} frames")
        time_base, name = stream.time_base, container.format.name
        codec = stream.codec_context.codec.canonical_name
    if not pts or shown is None or time_base is None:
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
        codec=codec,
        open_gop=open_gop,
        edited=edited,
        shown=shown,
    )


def _shown(stream: VideoStream, keyframe: Packet) -> Shown | None:
    """How frames are shown, told from a keyframe; None where it can't be decoded alone."""
    frames = [*stream.decode(keyframe), *stream.decode(None)]
    stream.codec_context.flush_buffers()
    return shown_size(frames[0], stream.sample_aspect_ratio) if frames else None

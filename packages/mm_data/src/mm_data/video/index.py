"""What a video file holds, found by demuxing: the timestamp of every frame, and how frames are shown.

FFmpeg never sees a path or a string from a manifest, which it would interpret (`http:`, `concat:`,
`subfile:`): files are opened by `mm_data.media` and handed over as file objects, with allow-lists of formats,
codecs and protocols.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO

import attrs
import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mm_data.bad import BadClip
from mm_data.video import limits
from mm_data.video.boxes import require_samples
from mm_data.video.images import format_of, read_image
from mm_data.video.limits import MAX_BYTES, MAX_FRAMES, MAX_PIXELS, Watched, failure, fault_of
from mm_data.video.shown import Shown, has_alpha, shown_size

ALLOWED = "mp4, mov, mkv, webm and MPEG transport streams are read, and PNG, JPEG and WebP"
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts"
CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})
IMAGE = "image"
"""What stands for the container of a still picture."""
DECODERS = ",".join((*sorted(CODECS), "libdav1d"))
"""The codecs' decoders in FFmpeg, of which libdav1d is AV1's."""
OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"RIFF": "an AVI or another RIFF",
    b"FLV": "an FLV",
    b"0&\xb2u": "an ASF (WMV)",
    b"OggS": "an Ogg",
    b"\x00\x00\x01\xba": "an MPEG program stream",
    b"#EXTM3U": "a playlist",
}
"""What files that are not allowed begin with."""
BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF", b"avif": "an AVIF"}
"""What pictures in mp4 boxes say at byte 8, of which FFmpeg would take a tile for a video."""


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
    streams: int = 1
    """Streams of pictures in the file, of which the first is read."""
    alpha: bool = False
    """Whether pictures say how much of them covers what is behind, which is black."""

    @property
    def still(self) -> bool:
        """Whether it is a picture, no video: one frame, whose time means nothing."""
        return self.container == IMAGE


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
    if head[4:8] == b"ftyp":
        name = BRANDS.get(head[8:12])
    if name is not None:
        raise BadClip("open", f"the file is {name}; {ALLOWED}")
    if (size := file.seek(0, io.SEEK_END)) > MAX_BYTES:
        raise BadClip("open", f"{size} bytes are more than {MAX_BYTES}")
    require_samples(file)
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


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The stream's own decoder; libvpx's for VP9 with alpha, which FFmpeg's own passes over."""
    if stream.metadata.get("alpha_mode") != "1" or stream.codec_context.codec.canonical_name != "vp9":
        return stream.codec_context
    decoder = VideoCodecContext.create("libvpx-vp9", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    return decoder


def index_video(file: BinaryIO) -> VideoIndex:
    """Reads the timestamps of all frames, and decodes the first keyframe, which tells how frames are shown.

    Raises:
        BadClip: No frames, a frame without a timestamp or with another's, a damaged packet, or pictures that
            can't be shown (HDR).
    """
    file.seek(0)
    if (kind := format_of(file.read(16))) is not None:
        return _index_image(file, kind)
    pts: list[int] = []
    keyframes: list[int] = []
    duration = 0
    open_gop = edited = False
    first: VideoFrame | None = None
    with demuxer(file) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise BadClip("index", f"damaged packet after {len(pts)} frames")
            if packet.pts is None:
                raise BadClip("index", f"frame {len(pts)} has no timestamp")
            if packet.is_keyframe:
                first = first or _decoded_alone(stream, packet)
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
        time_base, name, aspect = stream.time_base, container.format.name, stream.sample_aspect_ratio
        streams = len(container.streams.video)
        codec = stream.codec_context.codec.canonical_name
    if not pts or first is None or time_base is None:
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
        shown=shown_size(first, aspect),
        streams=streams,
        alpha=has_alpha(first),
    )


def _index_image(file: BinaryIO, kind: str) -> VideoIndex:
    """A picture as a video of one frame that lasts no time."""
    height, width, _ = read_image(file, kind).shape
    return VideoIndex(
        pts=(0,),
        keyframes=(0,),
        time_base=Fraction(1),
        seconds=Fraction(0),
        container=IMAGE,
        codec=kind.lower(),
        open_gop=False,
        edited=False,
        shown=Shown(height, width),
    )


def _decoded_alone(stream: VideoStream, keyframe: Packet) -> VideoFrame | None:
    """The picture of a keyframe; None where nothing comes out."""
    decoder = decoder_of(stream)
    frames = [*decoder.decode(keyframe), *decoder.decode(None)]
    decoder.flush_buffers()
    return frames[0] if frames else None

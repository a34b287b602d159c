"""Clips damaged in every way that files are: seeded, so that one that matters can be made again."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image

from mm_data import Dataset, Record
from tests.mm_data.conftest import Coded, coded_frame

PAGE = 4096
CONTAINERS = {"moov", "trak", "mdia", "minf", "stbl", "edts", "dinf"}

Damage = Callable[[bytes, random.Random], bytes]


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each box of an mp4 file, those inside of others too."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", content[start : start + 8])
        if size < 8:
            return
        yield name.decode("latin-1"), start, start + size
        if name.decode("latin-1") in CONTAINERS:
            yield from boxes(content, start + 8, start + size)
        start += size


def cut_anywhere(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def cut_at_a_box(content: bytes, rng: random.Random) -> bytes:
    edges = [edge for _, *both in boxes(content) for edge in both if 0 < edge <= len(content)]
    return content[: rng.choice(edges or [len(content) // 2]) + rng.choice([-1, 0, 1, 8])]


def bits_flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def bytes_overwritten(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 8, 64])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def header_overwritten(content: bytes, rng: random.Random) -> bytes:
    """A number of 32 bits in the index of an mp4 file, or in the head of another, is made large or odd."""
    inside = [start for name, start, _ in boxes(content) if name not in CONTAINERS | {"mdat"}]
    start = (rng.choice(inside) if inside else 0) + rng.randrange(4, 64)
    number = rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)])
    return (content[:start] + struct.pack(">I", number) + content[start + 4 :])[: len(content)]


def page_zeroed(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(0, len(content), 512)
    end = min(start + rng.choice([512, PAGE]), len(content))
    return content[:start] + bytes(end - start) + content[end:]


def without_moov(content: bytes, rng: random.Random) -> bytes:
    found = [(start, end) for name, start, end in boxes(content) if name == "moov"]
    return content[: found[0][0]] + content[found[0][1] :] if found else content[: len(content) // 3]


def text(content: bytes, rng: random.Random) -> bytes:
    return b"This is a note, not a video.\n" * rng.randrange(1, 200)


def empty(content: bytes, rng: random.Random) -> bytes:
    return b""


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(content))


def of_another_format(content: bytes, rng: random.Random) -> bytes:
    start = rng.choice([b"GIF89a", b"RIFF\0\0\0\0AVI LIST", b"FLV\1", b"\xff\xd8\xff\xe0", b"#EXTM3U\n"])
    return start + content[len(start) :]


def box_of_any_size(content: bytes, rng: random.Random) -> bytes:
    """A box says that it has gigabytes, or nothing."""
    start = rng.choice([start for _, start, _ in boxes(content)] or [0])
    size = rng.choice([0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF])
    return content[:start] + struct.pack(">I", size) + content[start + 4 :]


def samples_made_up(content: bytes, rng: random.Random) -> bytes:
    """Each of 80 million frames is one byte; FFmpeg makes 5 GB of them."""
    places = {name: start + 8 for name, start, _ in boxes(content)}
    if "stsz" not in places:
        return content[: len(content) // 3]
    changed, frames = bytearray(content), 80_000_000
    struct.pack_into(">III", changed, places["stsz"], 0, 1, frames)
    struct.pack_into(">III", changed, places["stts"] + 4, 1, frames, 512)
    struct.pack_into(">IIII", changed, places["stsc"] + 4, 1, 1, frames, 1)
    return bytes(changed)


HOPELESS: tuple[Damage, ...] = (text, empty, noise, of_another_format)
"""What no reader reads."""
DAMAGES: tuple[Damage, ...] = (
    cut_anywhere,
    cut_at_a_box,
    bits_flipped,
    bytes_overwritten,
    header_overwritten,
    page_zeroed,
    without_moov,
    box_of_any_size,
    samples_made_up,
    *HOPELESS,
)


def originals(folder: Path, coded: Coded) -> dict[str, bytes]:
    """Intact clips by the ends of their names."""
    options = {"x264-params": "keyint=8"}
    written = [
        coded.write(folder / "a.mp4", options=options),
        coded.write(folder / "b.mkv", options=options),
        coded.write(folder / "c.webm", codec="libvpx-vp9", options={"g": "8"}),
        coded.write(folder / "d.ts", container="mpegts", options=options),
    ]
    for name in ("e.png", "f.jpg", "g.webp"):
        Image.fromarray(coded_frame(5)).save(folder / name)
        written.append(folder / name)
    return {path.suffix: path.read_bytes() for path in written}


def audio_only(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def too_large(path: Path) -> Path:
    """A picture of 8160x8160 in less than 1 MB."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=24)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 8160, 8160, "yuv420p"
        output.mux(stream.encode(av.VideoFrame(8160, 8160, "yuv420p")))
        output.mux(stream.encode(None))
    return path


def damaged_dataset(
    folder: Path, contents: Mapping[str, bytes], hopeless: Mapping[str, bytes], count: int, seed: int
) -> Dataset:
    """`count` damaged clips and a quarter as many intact ones, mixed; a caption names what was done."""
    rng = random.Random(seed)
    clips = [(f"hopeless {name}", Path(name).suffix, content) for name, content in hopeless.items()]
    for number in range(count - len(hopeless)):
        damage = DAMAGES[number % len(DAMAGES)]
        suffix = rng.choice([".mp4", *contents])
        content = damage(contents[suffix], rng)
        # The head of another format is a JPEG's own where the clip is one.
        how = "hopeless" if damage in HOPELESS and content != contents[suffix] else "damaged"
        clips.append((f"{how} {damage.__name__} {number}", suffix, content))
    clips += [("intact", ".mp4", contents[".mp4"])] * (count // 4)
    rng.shuffle(clips)
    records = []
    for number, (caption, suffix, content) in enumerate(clips):
        path = folder / f"{number:04d}{suffix}"
        path.write_bytes(content)
        records.append(Record(path, caption))
    return Dataset(folder, tuple(records), "digest")

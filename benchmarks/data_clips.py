"""The clips that the data stream is measured on, and the ways that it is compared with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import av
import numpy as np
import torch
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mm_config.specs import DataSpec
from mm_data import Asked
from mm_data.media import open_media
from mm_data.transforms.sampling import sampled
from mm_data.video.index import index_video

FPS = 24


def write_clips(
    folder: Path, name: str, *, count: int, size: tuple[int, int], frames: int, gop: int
) -> list[Path]:
    """H.264 clips of a picture that moves, with grain, and a keyframe every `gop` frames."""
    height, width = size
    paths = [folder / f"{name}-{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        draw = np.random.default_rng(number)
        coarse = draw.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
        picture = coarse.repeat(16, 0).repeat(16, 1)
        grain = draw.integers(0, 12, (height, width, 1), np.uint8)
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=FPS)
            assert isinstance(stream, VideoStream)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            keyframes = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"
            stream.codec_context.options = {"preset": "veryfast", "x264-params": keyframes}
            for at in range(frames):
                moved = np.roll(picture, (at, 2 * at), (0, 1))[:height, :width]
                shown = moved // 2 + np.roll(grain, at * 7, 1)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(shown.astype(np.uint8), format="rgb24")))
            output.mux(stream.encode(None))
    return paths


@attrs.frozen
class Ask:
    """Frames of a clip."""

    path: Path
    """The file."""
    pts: tuple[int, ...]
    """Timestamps, rising."""

    @classmethod
    def of(cls, asked: Asked, data: DataSpec) -> Ask:
        """What the stream decodes for a sample."""
        with open_media(asked.record.path) as file:
            index = index_video(file)
        return cls(asked.record.path, tuple(sampled(data, index, None, asked.shape.num_frames, asked.draw)))


def bare_rate(asks: Sequence[Ask], height: int, width: int, threads: int) -> float:
    """Clips/s of opening, seeking, decoding and swscale alone; two clips are held, as a batch holds them."""
    decode = partial(_bare, height=height, width=width)
    started = time.perf_counter()
    held: deque[np.ndarray] = deque(maxlen=2)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(decode, ask) for ask in asks[: threads + 2])
        for ask in [*asks[threads + 2 :], *[None] * len(waiting)]:
            held.append(waiting.popleft().result())
            if ask is not None:
                waiting.append(pool.submit(decode, ask))
    return len(asks) / (time.perf_counter() - started)


def _bare(ask: Ask, height: int, width: int) -> np.ndarray:
    frames = np.empty((len(ask.pts), height, width, 3), np.uint8)
    done = 0
    with av.open(str(ask.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(ask.pts[0], stream=stream)
        for frame in container.decode(stream):
            while done < len(ask.pts) and frame.pts == ask.pts[done]:
                scaled = frame.reformat(width, height, "rgb24", interpolation=Interpolation.BICUBIC)
                frames[done] = scaled.to_ndarray()
                done += 1
            if done == len(ask.pts):
                return frames
    raise AssertionError(f"{ask.path} lacks a frame")


class WholeClips(Dataset[Tensor]):
    """A map-style dataset as tutorials write it: the whole clip in RGB, a window of it, float32, resized."""

    def __init__(self, paths: Sequence[Path], clips: int, shape: tuple[int, int, int]) -> None:
        self.paths = paths
        self.clips = clips
        self.shape = shape

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> Tensor:
        """`[3, T, H, W]` in -1 to 1."""
        num_frames, height, width = self.shape
        with av.open(str(self.paths[index % len(self.paths)])) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        first = int(torch.randint(len(video) - num_frames + 1, ()))
        window = video[first : first + num_frames].float() / 255
        scale = max(height / window.shape[2], width / window.shape[3])
        size = [max(round(window.shape[2] * scale), height), max(round(window.shape[3] * scale), width)]
        large = torch.nn.functional.interpolate(window, size, mode="bilinear", antialias=True)
        top, left = (large.shape[2] - height) // 2, (large.shape[3] - width) // 2
        cropped = large[:, :, top : top + height, left : left + width]
        return ((cropped - 0.5) / 0.5).permute(1, 0, 2, 3)


def seed_rate(paths: Sequence[Path], clips: int, shape: tuple[int, int, int], workers: int) -> float:
    """Clips/s from torch's DataLoader over `WholeClips`."""
    loader: DataLoader[Any] = DataLoader(
        WholeClips(paths, clips, shape), batch_size=2, shuffle=True, num_workers=workers
    )
    started = time.perf_counter()
    taken = sum(len(batch) for batch in loader)
    return taken / (time.perf_counter() - started)

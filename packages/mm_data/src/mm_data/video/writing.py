"""Writing mp4 files that play everywhere, with a comment that says where they come from."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace

from mm_config.durable import staged_file
from mm_config.schema import UserError

# x264's AVX-512 code writes other bytes from run to run; every x86-64 of the last decade has SSE 4.2.
_REPEATABLE = {"x264-params": "asm=SSE4.2"} if platform.machine() in ("x86_64", "AMD64") else {}

_BT601 = 6
"""SMPTE 170M in the tables of H.273, for primaries and transfer."""


def write_mp4(
    path: Path,
    frames: np.ndarray | torch.Tensor | Iterable[torch.Tensor],
    fps: float,
    comment: str = "",
    *,
    crf: int = 18,
    preset: str = "medium",
) -> None:
    """Writes H.264 (yuv420p, BT.601) that is complete or not there: a temporary file is renamed.

    Equal frames and arguments give equal bytes.

    Args:
        path: The file; its folder exists.
        frames: uint8 RGB `[T, H, W, 3]`, height and width even, or parts of that in their order, of which one
            is held at a time.
        fps: Frames per second.
        comment: Stored in the file's `comment` tag, see `read_comment`.
        crf: x264's constant rate factor: 0 is lossless, 51 the worst.
        preset: x264's preset, from `ultrafast` to `veryslow`.

    Raises:
        UserError: Height or width is odd, which yuv420p can't hold.
    """
    parts = iter([frames] if isinstance(frames, np.ndarray | torch.Tensor) else frames)
    first = _pixels(next(parts))
    _, height, width, _ = first.shape
    if height % 2 or width % 2:
        raise UserError(f"can't write {path}: H.264 with yuv420p needs even sizes, got {width}x{height}")
    with staged_file(path) as unfinished, av.open(str(unfinished), mode="w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        context.color_primaries = context.color_trc = _BT601
        context.options = {"crf": str(crf), "preset": preset, **_REPEATABLE}
        for pixels in chain([first], map(_pixels, parts)):
            for image in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def _pixels(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    pixels = frames.cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    assert pixels.ndim == 4 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8, pixels.shape
    return pixels


def read_mp4(path: Path) -> torch.Tensor:
    """All frames of a video that `write_mp4` wrote: uint8 RGB `[T, H, W, 3]`, as it keeps them."""
    with path.open("rb") as file, av.open(file, mode="r") as container:
        return torch.from_numpy(
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        )


def read_comment(path: Path) -> str:
    """The `comment` tag of a video file; empty where it has none."""
    with path.open("rb") as file, av.open(file, mode="r") as container:
        return container.metadata.get("comment", "")

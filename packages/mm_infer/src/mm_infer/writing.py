"""Videos as files: mp4s that say how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from mm_config.runs import Run, comment_for
from mm_config.schema import UserError
from mm_config.specs import GenerationRequest, InferSpec
from mm_data import Strip, write_mp4
from mm_infer.pipeline import Video
from mm_infer.stages import frame_rate


def write_video(path: Path, video: Video, spec: InferSpec, run: Run | None = None) -> None:
    """Writes an mp4, whole or not at all, whose comment tag names the spec's hash, the request and the run.

    A video without a run says that no run records it. Its folder is made where only that one is missing.

    Raises:
        UserError: The file can't be written.
    """
    write_frames(path, video.frames, video.request, spec, run)


def write_frames(
    path: Path,
    frames: Tensor | Iterable[Tensor],
    request: GenerationRequest,
    spec: InferSpec,
    run: Run | None = None,
) -> None:
    """The same of frames that may come in parts, uint8 `[t, H, W, 3]` each, as they are decoded."""
    try:
        path.parent.mkdir(exist_ok=True)
        write_mp4(path, frames, frame_rate(spec), comment=comment_for(spec, request, run and run.record))
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error


def strips_of(videos: Sequence[Video]) -> list[Strip]:
    """What a contact sheet shows: the first video of each prompt and image, in the requests' order."""
    firsts: dict[tuple[str | None, ...], Video] = {}
    for video in videos:
        asked = video.request
        firsts.setdefault((asked.prompt, asked.image, asked.last_image), video)
    return [Strip(video.frames, video.request.prompt) for video in firsts.values()]

"""What a run keeps beside its videos, and what it says where one can't be kept."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from mm_config.console import aside
from mm_config.schema import UserError
from mm_data import write_strip
from mm_infer.pipeline import Pipeline
from mm_infer.previews import OnPreview, Preview, preview_path
from mm_infer.wanted import Wanted


def keeping_previews(pipeline: Pipeline, wanted: Sequence[Wanted]) -> OnPreview | None:
    """Writes previews into run folders, by the first rank of each group; None where none are asked for.

    Args:
        pipeline: What makes the videos.
        wanted: All of them.
    """
    if pipeline.spec.runtime.preview_every is None:
        return None
    places = {one.request: one for one in wanted}

    def write(preview: Preview) -> None:
        if not pipeline.layout.leads:
            return
        place = places[preview.request]
        path = preview_path(place.run.path, place.name, preview.step)
        try:
            path.parent.mkdir(exist_ok=True)
            write_strip(path, preview.frames)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror or error}") from error

    return write


def drain(parts: Iterator[Tensor]) -> None:
    """Has all parts made that are left, and drops them."""
    deque(parts, maxlen=0)


@contextmanager
def drained(parts: Iterator[Tensor]) -> Iterator[Iterator[Tensor]]:
    """Parts that are all made, also where what is done with them fails: other ranks make them too."""
    try:
        yield parts
    finally:
        drain(parts)


@contextmanager
def naming(latents: Path) -> Iterator[None]:
    """Says where the latents lie of a video that can't be decoded or written, and how to go on."""
    try:
        yield
    except Exception:
        command = f"mm generate --decode {shlex.quote(str(latents))} --out video.mp4"
        aside(f"its latents are kept; once what is wrong is mended, {command} goes on from them")
        raise

"""What looks on while a run makes its videos: `mm compare` takes times, latents and frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import attrs
from torch import Tensor, nn

from mm_config.specs import Expert
from mm_infer.denoise import OnStep
from mm_infer.passes import Forward
from mm_infer.previews import OnPreview


def untimed(_: str) -> AbstractContextManager[object]:
    """Takes no time."""
    return nullcontext()


@attrs.frozen(eq=False)
class Watch:
    """What is told of a run of videos; none of it alters them."""

    on_step: OnStep | None = None
    """Called after each step of each batch."""
    on_preview: OnPreview | None = None
    """Called with each preview of each video."""
    on_frames: Callable[[Tensor], object] | None = None
    """Called with each video's frames, uint8 `[T, H, W, 3]`, in the order of the requests."""
    around: Callable[[Forward, Mapping[Expert, nn.Module]], Forward] | None = None
    """Wraps what makes the passes of one batch by the experts."""
    timed: Callable[[str], AbstractContextManager[object]] = untimed
    """Takes the time of a stage of a batch: `encode` and `denoise`."""


UNWATCHED = Watch()

"""What is done with decoded frames before they are written: each stage takes frames in parts and gives some.

A stage is built from its spec by what is registered under `mm.stages` for the tag of the spec's class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from mm_config.schema import concerning, tag_of
from mm_config.specs import InferSpec
from mm_data import to_unit_frames
from mm_models import builder_of

Stage = Callable[[Iterable[Tensor]], Iterator[Tensor]]
"""From parts of a video, float32 `[t, H, W, 3]` from 0 to 1 on the CPU, to parts of the finished one. It may
hold back what it needs of a part for the next, but not the whole video: a video's length has no limit."""

Output = Literal["uint8", "float"]
"""How frames are handed out: 0 to 255 in uint8, or 0 to 1 in float32."""


def finished(spec: InferSpec, slices: Iterable[Tensor], output: Output = "uint8") -> Iterator[Tensor]:
    """The frames `[t, H, W, 3]` of a video once all stages of a spec have had them.

    Args:
        spec: Says which stages.
        slices: The decoded video in parts, `[1, 3, t, H, W]` in [-1, 1].
        output: Cut to uint8 as `to_frames` cuts, after the last stage, or float32 from 0 to 1.

    Raises:
        UserError: Nothing is installed for a stage.
    """
    # By `map`, which holds no part while the next one is decoded.
    parts: Iterator[Tensor] = map(_unit_frames, slices)
    for stage in spec.after_decode:
        parts = builder_of("mm.stages", tag_of(stage))(stage)(parts)
    return parts if output == "float" else map(_cut, parts)


def _unit_frames(video_1CTHW: Tensor) -> Tensor:
    return to_unit_frames(video_1CTHW[0])


def _cut(frames: Tensor) -> Tensor:
    return (frames * 255).to(torch.uint8)


def require_stages(spec: InferSpec) -> None:
    """Looks whether every stage of a spec can be built.

    Raises:
        UserError: Nothing is installed for one.
    """
    for index, stage in enumerate(spec.after_decode):
        with concerning(f"spec.after_decode.{index}"):
            builder_of("mm.stages", tag_of(stage))


def frame_rate(spec: InferSpec) -> int:
    """Frames per second of what the stages of a spec make."""
    size = spec.num_frames, spec.height, spec.width, spec.fps
    for stage in spec.after_decode:
        size = stage.size_after(*size)
    return size[-1]

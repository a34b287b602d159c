"""Larger frames by Lanczos resampling, which adds no detail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm_config.specs import LanczosUpscaleSpec
from mm_infer.stages import Stage


def lanczos_upscale(spec: LanczosUpscaleSpec) -> Stage:
    """A stage that makes `[t, H, W, 3]` `factor` times as high and as wide.

    Pillow resamples each channel in float32 with a window of three pixels on each side, whose weights are
    normed anew at the edges. What swings beyond black or white is cut off.
    """

    def enlarged(parts: Iterable[Tensor]) -> Iterator[Tensor]:
        for part in parts:
            yield torch.stack([_resized(frame, spec.factor) for frame in part])

    return enlarged


def _resized(frame_HWC: Tensor, factor: int) -> Tensor:
    height, width, _ = frame_HWC.shape
    size = width * factor, height * factor
    channels = [
        np.asarray(Image.fromarray(channel, mode="F").resize(size, Image.Resampling.LANCZOS))
        for channel in frame_HWC.movedim(-1, 0).contiguous().numpy()
    ]
    return torch.from_numpy(np.stack(channels, axis=-1)).clamp(0, 1)

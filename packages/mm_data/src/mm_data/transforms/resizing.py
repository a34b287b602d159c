"""From a shown frame to one of a batch."""

from __future__ import annotations

import numpy as np
import torch
from av.video.frame import VideoFrame
from torch.nn.functional import interpolate

from mm_config.specs import Interpolation
from mm_data.transforms.framing import Framing


def framed(
    frame: np.ndarray,
    crop: tuple[int, int, int, int] | None,
    how: Framing,
    interpolation: Interpolation,
) -> np.ndarray:
    """A frame resized, cropped and mirrored.

    Args:
        frame: uint8 RGB `[H, W, 3]`.
        crop: Top, left, height and width of what is taken of it before; None takes all.
        how: What becomes of it.
        interpolation: How it is resized, where it has not got the size yet.

    Returns:
        uint8 RGB `[crop height, crop width, 3]`, a view where it was not resized.
    """
    if crop is not None:
        top, left, height, width = crop
        frame = frame[top : top + height, left : left + width]
    if frame.shape[:2] != (how.height, how.width):
        frame = _resized(frame, how.height, how.width, interpolation)
    kept = frame[how.top : how.top + how.crop_height, how.left : how.left + how.crop_width]
    return kept[:, ::-1] if how.flip else kept


def _resized(frame: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    if interpolation is Interpolation.BICUBIC:
        whole = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        return whole.reformat(width, height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).movedim(-1, 0)[None]
    smooth = interpolation is Interpolation.BILINEAR_ANTIALIASED
    scaled = interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=smooth)
    return scaled[0].movedim(0, -1).numpy()

"""Between 8-bit pixels and the range networks work in."""

from __future__ import annotations

import torch


def to_model_range(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames `[..., T, H, W, 3]` as float32 video `[..., 3, T, H, W]` in [-1, 1]."""
    return (frames.float() / 127.5 - 1.0).movedim(-1, -4)


def to_frames(video: torch.Tensor) -> torch.Tensor:
    """Video `[..., 3, T, H, W]` as uint8 frames `[..., T, H, W, 3]`; what lies outside of [-1, 1] saturates.

    The exact inverse of `to_model_range` on its outputs.
    """
    pixels = ((video.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.movedim(-4, -1).contiguous()

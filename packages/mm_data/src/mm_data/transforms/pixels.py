"""Between 8-bit pixels and the range networks work in."""

from __future__ import annotations

import torch


def to_model_range(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames `[..., T, H, W, 3]` as float32 video `[..., 3, T, H, W]` in [-1, 1]."""
    return (frames.float() / 127.5 - 1.0).movedim(-1, -4)


def to_frames(video: torch.Tensor) -> torch.Tensor:
    """Video `[..., 3, T, H, W]` as uint8 frames `[..., T, H, W, 3]`, cut as by Wan's code and diffusers."""
    return (to_unit_frames(video) * 255).to(torch.uint8)


def to_unit_frames(video: torch.Tensor) -> torch.Tensor:
    """Video `[..., 3, T, H, W]` as float32 frames `[..., T, H, W, 3]` from 0 to 1; the rest saturates."""
    return (video.float() / 2 + 0.5).clamp(0, 1).movedim(-4, -1).contiguous()

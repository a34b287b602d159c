"""Frames as 8-bit pixels, against diffusers' and against Wan's own way from a video to a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor

from mm_data import to_frames, to_unit_frames

VIDEO = 1.2 * torch.randn(2, 3, 5, 16, 24, generator=torch.Generator().manual_seed(3))


def test_frames_are_those_that_diffusers_exports():
    floats: Any = VideoProcessor(vae_scale_factor=8).postprocess_video(VIDEO, output_type="np")
    assert np.array_equal(to_unit_frames(VIDEO).numpy(), floats)
    # `export_to_video` does this to arrays.
    assert np.array_equal(to_frames(VIDEO).numpy(), (floats * 255).astype(np.uint8))


def test_frames_are_those_that_wans_own_code_saves():
    # `save_video` clamps, lets torchvision's make_grid bring (-1, 1) to (0, 1), and casts 255 times that.
    shown = VIDEO.clamp(-1, 1).sub(-1).div(max(1 - (-1), 1e-5))
    saved = (shown * 255).type(torch.uint8).permute(0, 2, 3, 4, 1)
    assert torch.equal(to_frames(VIDEO), saved)

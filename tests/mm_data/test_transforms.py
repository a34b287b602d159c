"""Pixels to the model's range and back."""

from __future__ import annotations

import torch

from mm_data import to_frames, to_model_range


def test_every_pixel_value_survives_the_round_trip_within_one():
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 2, 8, 16, 1).repeat(3, 1, 1, 1, 3)
    video = to_model_range(frames)
    assert video.shape == (3, 3, 2, 8, 16) and video.dtype == torch.float32
    assert video.min() == -1 and video.max() == 1
    lost = frames.int() - to_frames(video).int()
    assert lost.min() == 0 and lost.max() == 1


def test_values_outside_of_the_range_saturate():
    video = torch.tensor([-3.0, 0.0, 3.0]).reshape(1, 3, 1, 1, 1)
    assert to_frames(video).flatten().tolist() == [0, 127, 255]

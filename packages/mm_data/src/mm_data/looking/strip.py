"""The frames of a video side by side, as one picture of their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mm_config.durable import staged_file


def write_strip(path: Path, frames: np.ndarray | torch.Tensor) -> None:
    """Writes uint8 RGB frames `[T, H, W, 3]` as a PNG `[H, T W, 3]`, whole or not at all.

    Raises:
        OSError: It can't be written.
    """
    pixels = frames.cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    with staged_file(path) as unfinished:
        Image.fromarray(np.concatenate([*pixels], axis=1)).save(unfinished, "PNG")

"""A CLIP image encoder so small that a test writes and reads it in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel


def write_clip(folder: Path, *, width: int = 16, layers: int = 3, attention_dropout: float = 0.0) -> None:
    """Writes one with random weights as transformers does: 28 x 28 pixels in patches of 14, 2 heads.

    The weights follow from torch's own generator, and are wide enough for features to tell images apart.
    """
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        hidden_act="gelu",
        attention_dropout=attention_dropout,
    )
    network: Any = CLIPVisionModel(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)

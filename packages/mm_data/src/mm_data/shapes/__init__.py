"""Rendered clips of moving shapes, and how to tell from pixels what a clip shows."""

from mm_data.shapes.captions import parse_caption
from mm_data.shapes.dataset import render_dataset, verify
from mm_data.shapes.render import render
from mm_data.shapes.score import Measured, measure, score, told_apart

__all__ = [
    "Measured",
    "measure",
    "parse_caption",
    "render",
    "render_dataset",
    "score",
    "told_apart",
    "verify",
]

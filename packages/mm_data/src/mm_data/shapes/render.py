"""Clips of one shape that crosses the middle of a plain background in a straight line.

Lengths are shares of the picture's side, so that every size shows the same scene.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from mm_config.specs import ShapesSpec
from mm_data.shapes.captions import RGB, UNIT_STEP, parse_caption

RADIUS = (10 / 64, 13 / 64)
"""A circle's radius, half the side of a square."""
TRAVEL = (1.2 * 16 / 64, 1.8 * 16 / 64)
"""From the first frame's centre to the last one's."""
OFFSET = (-3 / 64, 3 / 64)
"""Of the path's middle from the picture's centre, in x and in y."""
GREY = (24.0, 40.0)
"""Level of the background."""


def render(spec: ShapesSpec, caption: str, number: int) -> np.ndarray:
    """Draws clip `number` of a caption; equal arguments give equal pixels on every machine.

    Edges are anti-aliased: a pixel's coverage is its distance to the edge, cut to one pixel's width.

    Returns:
        uint8 RGB `[num_frames, size, size, 3]`.
    """
    colour, shape, direction = parse_caption(caption)

    def draw(name: str, bounds: tuple[float, float]) -> float:
        return _uniform(f"{spec.seed}/{caption}/{number}/{name}", *bounds)

    radius = draw("radius", RADIUS) * spec.size
    travel = draw("travel", TRAVEL) * spec.size
    background = draw("grey", GREY)
    middle = [(0.5 + draw(axis, OFFSET)) * spec.size for axis in ("x", "y")]
    along = np.linspace(-travel / 2, travel / 2, spec.num_frames)
    centre_x, centre_y = (m + unit * along for m, unit in zip(middle, UNIT_STEP[direction], strict=True))

    pixel = np.arange(spec.size) + 0.5
    distance_x = np.abs(pixel[None, None, :] - centre_x[:, None, None])
    distance_y = np.abs(pixel[None, :, None] - centre_y[:, None, None])
    if shape == "circle":
        coverage = np.clip(radius + 0.5 - np.hypot(distance_x, distance_y), 0, 1)
    else:
        coverage = np.clip(radius + 0.5 - distance_x, 0, 1) * np.clip(radius + 0.5 - distance_y, 0, 1)
    coverage = coverage[..., None]
    return np.round(background * (1 - coverage) + np.array(RGB[colour]) * coverage).astype(np.uint8)


def _uniform(key: str, low: float, high: float) -> float:
    """A number in [low, high) drawn by the key alone."""
    bits = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") >> 11
    return low + (high - low) * bits / 2**53

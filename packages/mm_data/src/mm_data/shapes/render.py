"""Clips of one shape that moves in a straight line on a plain background, across its middle or away from it.

Lengths are shares of the picture's side, so that every size shows the same scene.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from mm_config.specs import ShapesSpec, ShapesStart
from mm_data.shapes.captions import RGB, UNIT_STEP, parse_caption

RADIUS = (10 / 64, 13 / 64)
"""A circle's radius, half the side of a square."""
TRAVEL = (1.2 * 16 / 64, 1.8 * 16 / 64)
"""From the first frame's centre to the last one's."""
TRAVEL_FROM_MIDDLE = (11 / 64, 15 / 64)
"""The same of a shape that starts near the middle."""
OFFSET = (-3 / 64, 3 / 64)
"""Of the path's middle, or of its start, from the picture's centre, in x and in y."""
GREY = (24.0, 40.0)
"""Level of the background."""


def render(spec: ShapesSpec, shown: str, number: int) -> np.ndarray:
    """Draws clip `number` of those that show one of `spec.shown`.

    Equal arguments give equal pixels on every machine.

    Edges are anti-aliased: a pixel's coverage is its distance to the edge, cut to one pixel's width.

    Returns:
        uint8 RGB `[num_frames, size, size, 3]`.
    """
    colour, shape, direction = parse_caption(shown)
    from_middle = spec.start is ShapesStart.MIDDLE

    def draw(name: str, bounds: tuple[float, float]) -> float:
        return _uniform(f"{spec.seed}/{shown}/{number}/{name}", *bounds)

    radius = draw("radius", RADIUS) * spec.size
    travel = draw("travel", TRAVEL_FROM_MIDDLE if from_middle else TRAVEL) * spec.size
    background = draw("grey", GREY)
    middle = [(0.5 + draw(axis, OFFSET)) * spec.size for axis in ("x", "y")]
    begin = 0.0 if from_middle else -travel / 2
    along = np.linspace(begin, begin + travel, spec.num_frames)
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

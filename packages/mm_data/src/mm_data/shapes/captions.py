"""What rendered shapes show, in words: "a {colour} {shape} moving {direction}"."""

from __future__ import annotations

import re

from mm_config.schema import UserError
from mm_config.specs import COLOURS, DIRECTIONS, FURTHER_COLOURS, SHAPES

_COLOURS = (*COLOURS, *FURTHER_COLOURS)
_FORM = re.compile(f"a ({'|'.join(_COLOURS)}) ({'|'.join(SHAPES)}) moving ({'|'.join(DIRECTIONS)})")

RGB = {
    "red": (230, 50, 50),
    "green": (50, 200, 70),
    "blue": (60, 90, 240),
    "yellow": (235, 215, 60),
    "purple": (175, 60, 215),
    "cyan": (60, 210, 220),
    "orange": (238, 125, 40),
    "white": (235, 235, 235),
}
"""The colour of each colour word, 8 bits per channel."""

UNIT_STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""The (x, y) direction of each direction word; y grows downwards."""


def parse_caption(caption: str) -> tuple[str, str, str]:
    """The colour, the shape and the direction that a caption in full asks for.

    Raises:
        UserError: It has another form.
    """
    match = _FORM.fullmatch(caption)
    if match is None:
        raise UserError(
            f"can't score {caption!r}: expected 'a COLOUR SHAPE moving DIRECTION' with a colour of "
            f"{', '.join(_COLOURS)}, a shape of {', '.join(SHAPES)}, a direction of {', '.join(DIRECTIONS)}"
        )
    colour, shape, direction = match.groups()
    return colour, shape, direction

"""Which samples are made of a clip, in frames as they are counted when it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import attrs

from mm_config.schema import Problem, UserError
from mm_config.specs import Pieces

Cut: TypeAlias = tuple[int, int]
"""The first frame and the one after the last."""
NUMBERS = {
    Pieces.CHUNKS: ("frames",),
    Pieces.WINDOWS: ("frames", "stride"),
    Pieces.UNIFORM: ("frames", "count"),
}
"""What pieces are made by."""


@attrs.frozen
class Cutting:
    """How long clips are cut into samples."""

    pieces: Pieces = Pieces.WHOLE
    """Which samples are made."""
    frames: int | None = None
    """Of a piece, but of a shot."""
    stride: int | None = None
    """Frames from the start of a window to that of the next."""
    count: int | None = None
    """Of a clip's pieces that are equally far apart."""

    def __attrs_post_init__(self) -> None:
        """Raises UserError where a number is missing, or is one that these pieces don't have."""
        wanted = NUMBERS.get(self.pieces, ())
        for name in ("frames", "stride", "count"):
            if (name in wanted) == (getattr(self, name) is None):
                whose = " and ".join(pieces.value for pieces, names in NUMBERS.items() if name in names)
                what = "is missing" if name in wanted else f"is given, which only {whose} have"
                raise UserError(Problem(f"piece_{name}", f"{what}; pieces are {self.pieces.value}"))


def cuts_of(
    cutting: Cutting, num_frames: int, cut: Cut | None, shots: tuple[Cut, ...]
) -> Iterator[Cut | None]:
    """The cuts that become samples of a clip; None for all of it. None at all where it is too short.

    Args:
        cutting: How it is cut.
        num_frames: Measured frames of the file; a picture is never cut.
        cut: The part that its source lists.
        shots: Further parts that its source lists, where shots are asked for.
    """
    if num_frames == 1 or cutting.pieces is Pieces.WHOLE:
        yield cut
        return
    if cutting.pieces is Pieces.SHOTS:
        yield from shots or (cut,)
        return
    first, end = cut or (0, num_frames)
    assert cutting.frames is not None
    last = end - cutting.frames
    if cutting.count is None:
        starts = range(first, last + 1, cutting.stride or cutting.frames)
    elif last < first:
        starts = ()
    else:
        gaps = max(cutting.count - 1, 1)
        starts = dict.fromkeys(first + (last - first) * number // gaps for number in range(cutting.count))
    for start in starts:
        yield start, start + cutting.frames

"""What a source says of its clips, as plain values: the seam between sources and measuring."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from mm_data.index.pieces import Cutting


@attrs.frozen
class Declared:
    """What a source claims of a clip, to be compared with what is measured; None where it says nothing."""

    num_frames: int | None = None
    """Frames of the file."""
    fps: float | None = None
    """Frames per second."""
    height: int | None = None
    """Pixels."""
    width: int | None = None
    """Pixels."""
    duration: float | None = None
    """Seconds of the file."""
    aesthetic: float | None = None
    """A score that somebody gave; nothing measures it."""


@attrs.frozen
class Listed:
    """One clip that a source lists; nothing of it has been opened."""

    name: str
    """What a person calls it, with forward slashes: the file relative to the root, `SHARD/MEMBER` or the url.
    Its suffix says whether it is a picture."""
    path: Path
    """The file or the shard that holds it, absolute, links resolved, inside an allowed root; perhaps missing.
    `Path()` where there is a url."""
    captions: tuple[str, ...]
    """All that may be chosen from, at least one."""
    place: str
    """Where it is listed, for messages: `FILE:LINE`, or the file itself."""
    cut: tuple[int, int] | None = None
    """The first frame and the one after the last, counted as they are shown; None takes all."""
    shots: tuple[tuple[int, int], ...] = ()
    """Cuts of which each can be a sample of its own, where the source lists several."""
    crop: tuple[int, int, int, int] | None = None
    """Top, left, height and width in pixels of a shown frame; None takes all."""
    part: tuple[int, int] | None = None
    """Offset and length in bytes in a shard; None where the file is the clip's own."""
    url: str | None = None
    """Where the clip lies over the network, allowed by the spec; None where it lies here."""
    declared: Declared = Declared()
    """What the source claims of the clip."""


@attrs.frozen
class LeftOut:
    """One clip that goes into no index, and why."""

    name: str
    """As `Listed.name`."""
    place: str
    """As `Listed.place`."""
    reason: str
    """Why, the same words for every clip that is left out for it, so that they can be counted."""
    is_bad: bool = False
    """Whether its file is missing or damaged, of which a training allows few."""


@attrs.frozen
class Source:
    """A source that was opened: nothing is read before `listed` is iterated, once."""

    kind: str
    """What it was taken for, such as `CSV`."""
    path: str
    """The file or folder that was named, absolute, or its url."""
    root: Path
    """The folder that relative paths start from, resolved; a file, below which nothing lies, of a bucket."""
    roots: tuple[Path, ...]
    """Every folder that clips may lie in, resolved: the root, and those that the location table names."""
    listed: Iterable[Listed | LeftOut]
    """Its clips, in an order that depends on the source alone. Iterating raises UserError, which names all
    wrong lines, before or after any clip."""
    cutting: Cutting | None = None
    """Which samples it asks for; None says nothing."""
    spec_lines: tuple[str, ...] = ()
    """What the source asks of training that `DataSpec` says, as lines to paste."""
    notes: tuple[str, ...] = ()
    """What else is to be told, such as settings of the source that are not taken over."""

"""From what sources list and what measuring finds to samples, with what is left out and what disagrees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from mm_data.bad import BadClip
from mm_data.index.journal import Found, Key, key_of
from mm_data.index.listed import LeftOut, Listed
from mm_data.index.measuring import Media
from mm_data.index.pieces import Cut, Cutting, cuts_of
from mm_data.records import content_of

_FPS_SHARE = 0.005
"""A declared rate may differ by so much: 30 is said of 30000/1001, 24 of 24000/1001."""
_SECONDS, _SECONDS_SHARE = 0.1, 0.01
"""A declared duration may differ by either: it is often that of the sound."""


@attrs.frozen
class Sample:
    """A row of an index."""

    listed: Listed
    """What its source says of it."""
    media: Media
    """What its file holds."""
    cut: Cut | None
    """Its part of the file; None for all of it."""

    @property
    def num_frames(self) -> int:
        """Frames of the cut."""
        return self.cut[1] - self.cut[0] if self.cut else self.media.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that are taken of a shown frame."""
        return self.listed.crop[2:] if self.listed.crop else (self.media.height, self.media.width)

    @property
    def content(self) -> tuple[Any, ...]:
        """What it is, as the content of a dataset has it."""
        return content_of(self.media.sha256, self.listed.captions, self.cut, self.listed.crop)


@attrs.frozen
class Mismatch:
    """A value that a source declares, where another was measured."""

    name: str
    """Of the clip."""
    place: str
    """Where it is listed."""
    field: str
    """What is declared."""
    declared: float
    """As the source has it."""
    measured: float
    """As the file has it."""


Outcome: TypeAlias = Sample | LeftOut | Mismatch


def samples_of(one: Listed, found: Mapping[Key, Found], cutting: Cutting) -> Iterator[Outcome]:
    """What becomes of a clip that a source lists."""
    media = found[key_of(one)]
    if isinstance(media, BadClip):
        yield LeftOut(one.name, one.place, str(media), is_bad=True)
        return
    for field, declared, measured in _declared(one, media):
        yield Mismatch(one.name, one.place, field, declared, measured)
    if one.crop and not _is_inside(one.crop, media):
        size = f"{media.width}x{media.height}"
        yield LeftOut(one.name, one.place, f"crop: {list(one.crop)} is not inside a picture of {size}")
        return
    cuts = list(cuts_of(cutting, media.num_frames, one.cut, one.shots))
    if not cuts:
        message = f"pieces: it has fewer than {cutting.frames} frames"
        yield LeftOut(one.name, one.place, message)
    for cut in cuts:
        if cut and not 0 <= cut[0] < cut[1] <= media.num_frames:
            message = f"cut: {cut[0]} to {cut[1]} is not inside {media.num_frames} frames"
            yield LeftOut(one.name, one.place, message)
        else:
            yield Sample(one, media, cut)


def _is_inside(crop: tuple[int, int, int, int], media: Media) -> bool:
    top, left, height, width = crop
    fits = top + height <= media.height and left + width <= media.width
    return min(top, left) >= 0 and min(height, width) > 0 and fits


def _declared(one: Listed, media: Media) -> Iterator[tuple[str, float, float]]:
    """Field, declared and measured value of each that disagree."""
    declared = one.declared
    for field in ("num_frames", "height", "width"):
        said, is_so = getattr(declared, field), getattr(media, field)
        if said is not None and said != is_so:
            yield field, said, is_so
    if media.is_image:
        return
    if (fps := declared.fps) is not None and abs(fps - media.fps) > _FPS_SHARE * media.fps:
        yield "fps", fps, float(media.fps)
    if (seconds := declared.duration) is not None:
        measured = float(media.seconds)
        if abs(seconds - measured) > max(_SECONDS, _SECONDS_SHARE * measured):
            yield "duration", seconds, measured

"""A prepared dataset as a plain value: files, captions and the key that orders them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs

from mm_config.specs import DataSpec


@attrs.frozen
class Measured:
    """What demuxing found in a clip's file, as it is shown: upright, with square pixels, in its cut."""

    num_frames: int
    """Frames of the cut, or of the whole file."""
    fps: Fraction
    """Frames by seconds of the whole file; 0 of an image."""
    height: int
    """Of a shown frame."""
    width: int
    """Of a shown frame."""


@attrs.frozen
class Record:
    """One clip and its caption."""

    path: Path
    """The video file, resolved, inside the dataset's root; or the shard that holds it."""
    caption: str
    """What the clip shows."""
    line: int = attrs.field(default=0, eq=False)
    """Where the manifest lists it, from 1 on; 0 where there is no manifest."""
    captions: tuple[str, ...] = ()
    """All captions to choose from, `caption` the first of them; empty where there is one."""
    cut: tuple[int, int] | None = None
    """The first frame and the one after the last, counted as they are shown; None takes all."""
    crop: tuple[int, int, int, int] | None = None
    """Top, left, height and width in pixels of a shown frame; None takes all."""
    part: tuple[int, int] | None = None
    """Offset and length in bytes of the clip in a shard; None where the file is the clip's own."""
    url: str | None = None
    """Where the clip lies over the network; `path` then is none of this machine's."""
    measured: Measured | None = attrs.field(default=None, eq=False)
    """What an index knows of it; None where nobody has measured it."""


def content_of(
    sha256: str | None,
    captions: Sequence[str],
    cut: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
) -> tuple[Any, ...]:
    """What a clip is: the sha256 of its file, its caption or captions, and its cut.

    None is the whole clip; the first frame and the one after the last are a part of it, and with a crop of
    its frames they are named beside it.
    """
    part = None if cut is None else list(cut)
    whole = part if crop is None else {"crop": list(crop), "cut": part}
    return sha256, captions[0] if len(captions) == 1 else list(captions), whole


@attrs.frozen
class Shape:
    """The frames of a clip as the network's batch has them."""

    num_frames: int
    """Frames."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""


@attrs.frozen
class Asked:
    """A sample that the plan asks for: the clip, and what is to be made of it."""

    record: Record
    """The clip."""
    index: int
    """Its place in the dataset."""
    shape: Shape
    """That of its batch."""
    draw: str
    """What random choices follow from: the seed, the sample and its epoch."""


def ask(record: Record, data: DataSpec, index: int = 0, draw: str = "") -> Asked:
    """A clip as it is asked for where all clips get the data's size."""
    return Asked(record, index, Shape(data.num_frames, data.height, data.width), draw)


@attrs.frozen
class Dataset:
    """Clips with captions, in the order of their manifest or index."""

    root: Path
    """The folder that holds the manifest and every clip."""
    records: Sequence[Record]
    """All clips, read as they are asked for where an index holds them; a place in it is a clip's index."""
    order_key: str
    """What the order of samples follows from, beside the seed: sha256 of the manifest's paths and captions. A
    run that goes on keeps the key that it began with."""
    in_order: str = ""
    """sha256 of the clips' bytes and captions in their order; empty where nobody has asked."""
    manifest: Path | None = None
    """The file that lists them; None where there is none."""
    parts: tuple[Dataset, ...] = ()
    """The datasets of a mixture, whose clips follow each other in `records`; empty where it is none."""

    def place_of(self, record: Record) -> str:
        """Where a record comes from, as messages say it: the manifest and its line, else the clip."""
        for part in self.parts:
            if record.path.is_relative_to(part.root):
                return part.place_of(record)
        return str(record.path) if self.manifest is None else f"{self.manifest}:{record.line}"

    def name_of(self, index: int) -> str:
        """A clip's file, from the dataset's root on, or where it lies over the network."""
        record = self.records[index]
        if record.url is not None:
            return record.url
        inside = record.path.is_relative_to(self.root)
        return record.path.relative_to(self.root).as_posix() if inside else str(record.path)

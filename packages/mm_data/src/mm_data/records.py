"""A prepared dataset as a plain value: files, captions and the digest that orders them."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen
class Record:
    """One clip and its caption."""

    path: Path
    """The video file, resolved, inside the dataset's root."""
    caption: str
    """What the clip shows."""


@attrs.frozen
class Dataset:
    """Clips with captions, in the order of their manifest."""

    root: Path
    """The folder that holds the manifest and every clip."""
    records: tuple[Record, ...]
    """All clips; the place in this tuple is the clip's index."""
    digest: str
    """sha256 of paths and captions: a change of either changes the order of samples."""

"""A prepared dataset as a plain value: files, captions and the key that orders them."""

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
    line: int = attrs.field(default=0, eq=False)
    """Where the manifest lists it, from 1 on; 0 where there is no manifest."""


@attrs.frozen
class Dataset:
    """Clips with captions, in the order of their manifest."""

    root: Path
    """The folder that holds the manifest and every clip."""
    records: tuple[Record, ...]
    """All clips; the place in this tuple is the clip's index."""
    order_key: str
    """What the order of samples follows from, beside the seed: sha256 of the manifest's paths and captions. A
    run that goes on keeps the key that it began with."""
    in_order: str = ""
    """sha256 of the clips' bytes and captions in their order; empty where nobody has asked."""
    manifest: Path | None = None
    """The file that lists them; None where there is none."""

    def place_of(self, record: Record) -> str:
        """Where a record comes from, as messages say it: the manifest and its line, else the clip."""
        return str(record.path) if self.manifest is None else f"{self.manifest}:{record.line}"

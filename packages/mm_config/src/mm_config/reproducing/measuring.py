"""How much two files differ whose bytes do: asked of the packages that read them."""

from __future__ import annotations

from pathlib import Path

from mm_config.schema.errors import UserError
from mm_config.schema.installed import loaded, registered

GROUP = "mm.measures"
"""Functions `(old, new) -> shares` of packages, by the ending of the files; see `shares`."""


def shares(old: Path, new: Path) -> dict[str, float]:
    """The largest difference of each named part of two files, as a share of the larger magnitude.

    The frames of a video are one part, by the name "". Parts that only one file has, or that have other
    shapes, are left out; so are all where no package reads such files, or one of them can't be read.
    """
    entry = registered(GROUP, new.suffix.removeprefix("."))
    if entry is None:
        return {}
    measure = loaded(entry, entry.value)
    try:
        return measure(old, new)
    except (UserError, OSError):
        return {}

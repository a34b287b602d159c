"""Values in which two runs differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from mm_config.schema.errors import UserError
from mm_config.schema.installed import loaded, registered

GROUP = "mm.measures"
"""Functions `(old, new) -> shares` of packages, by the ending of the files; see `shares`."""
NUMBERS, TENSORS, FRAMES = "numbers", "tensors", "frames"
KINDS = (NUMBERS, TENSORS, FRAMES)
"""What is measured each in its own way, so that the largest difference is told of each."""


@attrs.frozen
class Difference:
    """A value of the stored run that the reproduced run does not have."""

    where: str
    """`step 7`, `video a-red-circle-moving-left-1001.mp4` or `score`."""
    value: str
    """Which value: `loss`, `checkpoint model/model-00001.safetensors`."""
    old: str
    """In the stored run."""
    new: str
    """In the reproduced run."""
    kind: str = NUMBERS
    """One of `KINDS`."""
    share: float | None = None
    """The difference as a share of the larger magnitude, of tensors and frames the largest of all elements;
    None where it can't be measured."""
    damaged: bool = False
    """Whether the stored file is not the one that was written."""

    def __str__(self) -> str:
        return f"{self.where}: {self.value} {self.old} -> {self.new}"


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Each name whose value is not the same to the last bit, with both values; `none` where there is none."""
    for name in {**before, **after}:
        was, is_now = before.get(name, "none"), after.get(name, "none")
        # The shortest text that gives a float tells all floats apart, 0.0 and -0.0 as well.
        if repr(was) != repr(is_now):
            yield name, str(was), str(is_now)


def changed_numbers(
    where: str, before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[Difference]:
    """A difference for each name whose number is not the same to the last bit."""
    for name, was, is_now in changed(before, after):
        yield Difference(where, name, was, is_now, share=_share(before.get(name), after.get(name)))


def largest(differences: tuple[Difference, ...]) -> dict[str, Difference]:
    """The largest measured difference of each kind that has one."""
    measured = [one for one in differences if one.share is not None]
    found = {kind: [one for one in measured if one.kind == kind] for kind in KINDS}
    return {kind: max(ones, key=lambda one: one.share or 0.0) for kind, ones in found.items() if ones}


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


def _share(was: object, is_now: object) -> float | None:
    if not isinstance(was, (int, float)) or not isinstance(is_now, (int, float)):
        return None
    magnitude = max(abs(was), abs(is_now))
    return abs(was - is_now) / magnitude if math.isfinite(magnitude) and magnitude else 0.0

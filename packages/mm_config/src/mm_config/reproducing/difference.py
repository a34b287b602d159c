"""Values in which two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs


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

    def __str__(self) -> str:
        return f"{self.where}: {self.value} {self.old} -> {self.new}"


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Each name whose value is not the same to the last bit, with both values; `none` where there is none."""
    for name in {**before, **after}:
        was, is_now = before.get(name, "none"), after.get(name, "none")
        # The shortest text that gives a float tells all floats apart, 0.0 and -0.0 as well.
        if repr(was) != repr(is_now):
            yield name, str(was), str(is_now)

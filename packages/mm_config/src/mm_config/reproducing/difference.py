"""One value in which two runs differ."""

from __future__ import annotations

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

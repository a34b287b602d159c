"""Clips that were measured, without files, and specs that sort them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from mm_config.specs.data import BucketSpec, DataSpec
from mm_config.specs.datasets import ManifestSpec, MixturePart, MixtureSpec
from mm_data import Dataset, Record
from mm_data.records import Measured

Size = tuple[int, int, int]
"""Frames, height and width."""


def measured(sizes: Sequence[Size], name: str = "a", fps: Fraction = Fraction(16)) -> Dataset:
    """Clips of these sizes; one frame is an image."""
    root = Path("/nowhere") / name
    records = [
        Record(
            root / f"{n}.mp4", str(n), measured=Measured(frames, fps if frames > 1 else Fraction(0), *size)
        )
        for n, (frames, *size) in enumerate(sizes)
    ]
    return Dataset(root, tuple(records), f"key of {name}")


def mixture(*weights: float) -> MixtureSpec:
    """Parts with weights; what they name is never looked for."""
    return MixtureSpec(
        parts=tuple(MixturePart(dataset=ManifestSpec(name=str(n)), weight=w) for n, w in enumerate(weights))
    )


def bucket(num_frames: int, height: int, width: int, batch_size: int | None = None) -> BucketSpec:
    """A bucket by position."""
    return BucketSpec(num_frames=num_frames, height=height, width=width, batch_size=batch_size)


def spec(**changes: object) -> DataSpec:
    """Batches of 4 clips at 16 frames/s."""
    return DataSpec(**{"dataset": ManifestSpec(name="a"), "batch_size": 4, **changes})  # pyright: ignore

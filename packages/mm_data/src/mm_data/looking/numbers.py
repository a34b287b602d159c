"""What clips measure and how long their captions are, as columns: of all clips where an index knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from mm_data.index.table import IndexedRecords
from mm_data.looking.peeking import Peek
from mm_data.records import Dataset

WORD = r"\p{Han}|[\p{Hiragana}\p{Katakana}\p{Hangul}]+|[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]+"
"""A word of a caption: what stands between blanks, and of Chinese each character."""


@attrs.frozen(eq=False)
class Numbers:
    """Columns `[clips]` of the same clips, and `[captions]` of all their captions."""

    frames: np.ndarray
    """Frames of the clip, of its cut alone where it has one."""
    fps: np.ndarray
    """Frames by second; 0 of an image."""
    height: np.ndarray
    """Pixels of a shown frame."""
    width: np.ndarray
    """Pixels of a shown frame."""
    characters: np.ndarray
    """Of a caption."""
    words: np.ndarray
    """Of a caption."""

    @property
    def seconds(self) -> np.ndarray:
        """How long each clip takes, images left out."""
        moving = self.fps > 0
        return self.frames[moving] / self.fps[moving]


def indexes_of(dataset: Dataset) -> list[IndexedRecords]:
    """The index of a dataset, or those of a mixture's parts; none where some are not indexed."""
    parts = [part.records for part in dataset.parts or (dataset,)]
    found = [records for records in parts if isinstance(records, IndexedRecords)]
    return found if len(found) == len(parts) else []


def numbers_of(dataset: Dataset, peeks: Sequence[Peek]) -> Numbers:
    """The numbers of all clips of indexes; else of those that were looked at and can be read."""
    import pyarrow as pa

    if indexes := indexes_of(dataset):
        names = ("frames", "fps_num", "fps_den", "height", "width")
        columns = (np.concatenate([one.columns(name) for one in indexes]) for name in names)
        frames, over, under, height, width = columns
        captions = [_lengths(one.texts.column("captions").flatten()) for one in indexes]
        lengths = (np.concatenate(one) for one in zip(*captions, strict=True))
        return Numbers(frames, over / np.maximum(under, 1), height, width, *lengths)
    found = [peek.measured for peek in peeks if peek.measured]
    texts = [text for peek in peeks for text in peek.record.captions or (peek.record.caption,)]
    return Numbers(
        np.array([one.num_frames for one in found], np.int64),
        np.array([float(one.fps) for one in found]),
        np.array([one.height for one in found], np.int64),
        np.array([one.width for one in found], np.int64),
        *_lengths(pa.array(texts, pa.string())),
    )


def _lengths(captions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Characters and words of each text of an Arrow array."""
    from pyarrow.compute import MatchSubstringOptions, call_function

    characters = call_function("utf8_length", [captions])
    words = call_function("count_substring_regex", [captions], MatchSubstringOptions(WORD))
    return characters.to_numpy(zero_copy_only=False), words.to_numpy(zero_copy_only=False)

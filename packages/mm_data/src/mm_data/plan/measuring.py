"""What a plan has to know of each clip: from its index or its spec, else measured now."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import attrs
import numpy as np

from mm_config.rules import counted
from mm_config.schema import Problem, UserError
from mm_config.specs import DataSpec
from mm_data.bad import BadClip
from mm_data.index.journal import Found, key_of, measured
from mm_data.index.listed import Listed
from mm_data.index.table import IndexedRecords
from mm_data.media import open_media
from mm_data.plan.missing import allowed_of
from mm_data.plan.sizing import Columns
from mm_data.records import Dataset, Measured

NOTHING = Measured(1, Fraction(0), 1, 1)
"""In the place of a clip that can't be measured."""
SHOWN = 3


@attrs.frozen
class Known:
    """What is known of all clips of a dataset."""

    columns: Columns
    """Their lengths and sizes."""
    bad: Mapping[int, str]
    """Why those that can't be measured can't be, by their places."""


def known_of(data: DataSpec, dataset: Dataset, store: Path | None) -> Known:
    """Lengths and sizes of clips, measured where nobody has.

    Args:
        data: How many clips may be bad.
        dataset: The clips.
        store: Folder that keeps what is measured; None measures each time.

    Raises:
        UserError: More clips can't be measured than the spec allows, or the machine can't read some.
    """
    if isinstance(records := dataset.records, IndexedRecords):
        names = ("frames", "fps_num", "fps_den", "height", "width")
        return Known({name: records.columns(name) for name in names}, {})
    known = [record.measured for record in records]
    if None not in known:
        return Known(_columns([one or NOTHING for one in known]), {})
    listed = [Listed(str(one.path), one.path, (one.caption,), dataset.place_of(one)) for one in records]
    with TemporaryDirectory() as nowhere:
        journal = (store or Path(nowhere)) / f"measured-{dataset.order_key[:16]}.jsonl"
        media = measured(listed, _opened, journal, workers=os.cpu_count() or 1, isolated=data.isolated)
    found = [media[key_of(one)] for one in listed]
    bad = {index: f"can't be read: {one}" for index, one in enumerate(found) if isinstance(one, BadClip)}
    allowed = allowed_of(data, len(records))
    if len(bad) > allowed:
        reasons = "; ".join(f"{n:,} x {reason}" for reason, n in Counter(bad.values()).most_common(SHOWN))
        names = ", ".join(dataset.name_of(index) for index in list(bad)[:SHOWN])
        more = f" and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        clips = counted(len(records), "clip")
        message = f"{len(bad):,} of {clips} can't be measured, {allowed:,} may be: {reasons}"
        raise UserError(Problem("spec.data.dataset", f"{message} ({names}{more})"))
    return Known(_columns([_sizes(one) for one in found]), bad)


def _opened(listed: Listed) -> BinaryIO:
    return open_media(listed.path)


def _sizes(found: Found) -> Measured:
    if isinstance(found, BadClip):
        return NOTHING
    return Measured(found.num_frames, found.fps, found.height, found.width)


def _columns(known: Sequence[Measured]) -> Columns:
    return {
        "frames": np.array([one.num_frames for one in known]),
        "fps_num": np.array([one.fps.numerator for one in known]),
        "fps_den": np.array([one.fps.denominator for one in known]),
        "height": np.array([one.height for one in known]),
        "width": np.array([one.width for one in known]),
    }

"""What a running training has written since a page last asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mm_train.metrics import flat
from mm_train.report.parts import CURVES, LEVEL

MOST_BYTES = 2**20
"""Of one answer; a page asks again at once where there is more."""


def lines_after(metrics: Path, offset: int) -> dict[str, Any]:
    """The numbers of the lines that begin at an offset of metrics.jsonl.

    Returns:
        `offset`, where the next ones begin; `points`, each with its `step` and the numbers that charts show;
        `again`, whether the file is shorter than the offset, as after a resume: then all begins anew.
    """
    try:
        with metrics.open("rb") as file:
            size = file.seek(0, 2)
            if not 0 <= offset <= size:
                return {"offset": 0, "points": [], "again": True}
            file.seek(offset)
            whole, _, _ = file.read(MOST_BYTES).rpartition(b"\n")
    except FileNotFoundError:
        return {"offset": 0, "points": [], "again": offset > 0}
    points = [point for line in whole.splitlines() if (point := _point(line))]
    return {"offset": offset + len(whole) + bool(whole), "points": points, "again": False}


def _point(line: bytes) -> dict[str, float]:
    try:
        numbers = flat(json.loads(line))
    except (ValueError, AttributeError):
        return {}
    wanted = {"step", *CURVES.values()}
    found = {name: one for name, one in numbers.items() if name in wanted or name.startswith(LEVEL)}
    return {name: one for name, one in found.items() if type(one) in (int, float) and math.isfinite(one)}

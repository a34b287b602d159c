"""What a training left beside its numbers: checkpoints with their state, clips that could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mm_config.durable import read_bytes
from mm_config.pages import Cell, Column, Html, bars, number, side_by_side, table, tag
from mm_config.runs import Run
from mm_config.schema import UserError
from mm_config.stored import read_json
from mm_models import checkpoint
from mm_train.states import best_of, step_of

MOST_CLIPS = 200
"""Clips that are named."""
_MOST_BYTES = 2**26
"""Of a quarantine file."""


def checkpoints_of(run: Run, result: dict[str, Any]) -> Html:
    """The checkpoints, the newest first."""
    found, best = checkpoint.newest_first(run.checkpoints_dir), best_of(run.checkpoints_dir)
    rows = [_row(folder, best, result) for folder in found]
    if run.checkpoints_dir.is_dir():
        rows += [
            (one.name, None, None, None, "half written or half removed")
            for one in sorted(run.checkpoints_dir.iterdir())
            if one.name.endswith(".tmp")
        ]
    if not rows:
        return tag("p", "None is left.", class_="faint")
    columns = (
        Column("after step", "number"),
        Column("loss on held-out clips", "number"),
        Column("MiB", "number"),
        Column("written (UTC)"),
        Column("state"),
    )
    return table(columns, rows, filters=False)


def _row(folder: Path, best: Path | None, result: dict[str, Any]) -> tuple[Any, ...]:
    wrong, loss = checkpoint.at_a_glance(folder), None
    try:
        loss = read_json(folder / checkpoint.STATE, {"validation": float | None}).get("validation")
    except UserError as error:
        wrong = wrong or [str(error)]
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    written = datetime.fromtimestamp(max((one.st_mtime for one in files), default=0), UTC)
    words = [
        "damaged: " + "; ".join(wrong[:3]) if wrong else "whole",
        *(["the best"] if folder == best else []),
        *(["the result"] if result.get("checkpoint") == f"checkpoints/{folder.name}" else []),
    ]
    said = tag("span", ", ".join(words), class_="warn" if wrong else None)
    size = sum(one.st_size for one in files) / 2**20
    step = step_of(folder)
    return (Cell(f"{step:,}", step), loss, Cell(number(size), size), f"{written:%Y-%m-%d %H:%M}", said)


def bad_clips(folder: Path) -> list[Html]:
    """The clips that could not be read, by reason and one by one; none where there was none."""
    clips = list(_listed(folder / "quarantine.jsonl"))
    if not clips:
        return []
    reasons = Counter(f"{clip.get('stage')}: {clip.get('reason')}" for clip in clips)
    rows = [tuple(str(clip.get(name, "")) for name in ("path", "stage", "reason")) for clip in clips]
    columns = (Column("clip"), Column("stage", "choice"), Column("reason"))
    shown = side_by_side(bars("why clips could not be read", reasons.most_common(12)))
    return [shown, table(columns, rows[:MOST_CLIPS], filters=len(rows) > 12)]


def _listed(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = read_bytes(file, _MOST_BYTES).splitlines()
    except (FileNotFoundError, UserError):
        return
    for line in lines:
        try:
            clip = json.loads(line)
        except ValueError:
            continue  # A killed process left it unfinished.
        if isinstance(clip, dict):
            yield clip

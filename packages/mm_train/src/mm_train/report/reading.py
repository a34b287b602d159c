"""What a training wrote of itself, read back: its spec, its numbers by step, its samples, its parent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.durable import read_bytes
from mm_config.runs import Run, attach, read_inputs, read_result
from mm_config.schema import Problem, UserError
from mm_config.specs import TrainSpec
from mm_train.ledger import Account, account_of
from mm_train.metrics import MOST_BYTES, flat

Series = Mapping[int, float]
"""A number by step."""
MOST_SAMPLES_BYTES = 64 * 2**20
"""Of videos on one page."""


@attrs.frozen
class Told:
    """A training, finished or on its way."""

    name: str
    """Label and id."""
    run: Run
    """Its folder."""
    spec: TrainSpec
    """What is trained."""
    series: Mapping[str, Series]
    """Each number of metrics.jsonl by its name, such as `loss` or `validation/loss`."""
    result: Mapping[str, Any]
    """What result.json says; empty while it runs."""
    parent: Run | None
    """The run whose weights it started from, where that is still here."""
    samples: dict[int, tuple[Path, ...]]
    """Videos that were made on the way, by step."""
    account: Account | None
    """Where all of its time went; None where it was not written down."""

    def last(self, name: str) -> float | None:
        """The newest of some numbers."""
        series = self.series.get(name, {})
        return series[max(series)] if series else None


def told_by(run: Run) -> Told:
    """Reads a run.

    Raises:
        UserError: It is no training, or its numbers can't be read.
    """
    if not isinstance(run.spec, TrainSpec):
        raise UserError(Problem(str(run.path), "is no training, which `mm report` is about"))
    return Told(
        name="/".join(run.path.absolute().parts[-2:]),
        run=run,
        spec=run.spec,
        series=series_of(run.metrics_path),
        result=read_result(run.path) if run.result_path.is_file() else {},
        parent=_parent_of(run),
        samples=_samples_of(run.path / "samples"),
        account=account_of(run.path),
    )


def series_of(metrics: Path) -> dict[str, dict[int, float]]:
    """The numbers of metrics.jsonl by name and step; a line adds to its step. A last line that is not whole,
    of a run that is writing it, is left out.

    Raises:
        UserError: Another line is not one of ours.
    """
    found: dict[str, dict[int, float]] = {}
    try:
        lines = read_bytes(metrics, MOST_BYTES).splitlines()
    except FileNotFoundError:
        return {}
    for place, text in enumerate(lines):
        try:
            line = json.loads(text)
            step, numbers = line["step"], flat(line).items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if place == len(lines) - 1:
                break
            raise UserError(Problem(f"{metrics}:{place + 1}", "is no line of metrics")) from error
        for name, value in numbers:
            if isinstance(value, int | float) and name != "step":
                found.setdefault(name, {})[step] = value
    return found


def _parent_of(run: Run) -> Run | None:
    start = (read_inputs(run.path) or {}).get("spec.start_from")
    folder = None if start is None else start.details.get("run_dir")
    try:
        return attach(Path(folder)) if folder else None
    except UserError:
        return None  # It is gone, or moved; the spec still says what it was.


def _samples_of(folder: Path) -> dict[int, tuple[Path, ...]]:
    """The newest videos, as many as fit on a page."""
    found: dict[int, tuple[Path, ...]] = {}
    room = MOST_SAMPLES_BYTES
    for step, inside in sorted(_steps_of(folder), reverse=True):
        videos = tuple(sorted(inside.glob("*.mp4")))
        room -= sum(video.stat().st_size for video in videos)
        if room < 0:
            break
        if videos:
            found[step] = videos
    return dict(sorted(found.items()))


def _steps_of(folder: Path) -> Iterator[tuple[int, Path]]:
    for inside in folder.glob("step-*/"):
        number = inside.name.removeprefix("step-")
        if number.isdecimal():
            yield int(number), inside

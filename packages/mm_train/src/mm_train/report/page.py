"""The page of trainings, in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from mm_config.pages import Html, page, section, side_by_side, tuning
from mm_config.rules import counted
from mm_config.specs import TrainSpec
from mm_train.report.parts import (
    accounted,
    charts,
    differences,
    meanings,
    samples,
    spec_table,
    summary,
    times,
    titled,
)
from mm_train.report.reading import Told


def html_of(runs: Sequence[Told]) -> str:
    """The whole page."""
    names = ", ".join(run.name for run in runs)
    title = names if len(runs) == 1 else counted(len(runs), "training")
    return page(title, *_parts(runs), subtitle="" if len(runs) == 1 else names)


def _parts(runs: Sequence[Told]) -> Iterator[Html]:
    yield from (summary(run, named=len(runs) > 1) for run in runs)
    yield section("How they went" if len(runs) > 1 else "How it went", tuning(), side_by_side(*charts(runs)))
    yield section("Time by part", side_by_side(*(times(run) for run in runs)))
    if accounts := [accounted(run.name, run.account) for run in runs if run.account is not None]:
        yield section("All time, over all processes", side_by_side(*accounts), meanings())
    for run in runs:
        if run.samples:
            yield section(titled("Samples", run, runs), *samples(run, _inside))
    for run in runs[1:]:
        yield section(f"What differs in {run.name} from {runs[0].name}", differences(runs[0].spec, run.spec))
    for run in runs:
        if run.parent is not None and isinstance(run.parent.spec, TrainSpec):
            parent = "/".join(run.parent.path.absolute().parts[-2:])
            yield section(
                f"What differs in {run.name} from its parent {parent}",
                differences(run.parent.spec, run.spec),
            )
    for run in runs:
        yield section(titled("Spec", run, runs), spec_table(run.spec))


def _inside(video: Path) -> str:
    """The video itself, as an address that needs no file."""
    return f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"

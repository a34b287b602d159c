"""The page of trainings: what they are, how they went, and what they made on the way."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from mm_config import diff
from mm_config.pages import (
    Child,
    Column,
    Html,
    bars,
    curves,
    facts,
    number,
    page,
    section,
    side_by_side,
    table,
    tag,
    tuning,
)
from mm_config.rules import counted
from mm_config.schema import for_person, leaves, spec_hash
from mm_config.specs import TrainSpec
from mm_train.ledger import PARTS, Account
from mm_train.report.reading import Series, Told

POINTS = 1_000
"""Of a curve; each is the mean of the steps between it and the one before."""
CURVES = {
    "Loss": "loss",
    "Loss on held-out clips": "validation/loss",
    "Norm of the gradients": "grad_norm",
    "Learning rate": "lr",
    "Samples per second": "samples_per_second",
    "Seconds per step": "step_seconds",
    "Share of the device's peak (MFU)": "mfu",
    "Most memory in use, GiB": "peak_gib",
}
"""Titles of charts, and what they show."""
_PART = "seconds/"
_LEVEL = "validation/by_sigma/"


def html_of(runs: Sequence[Told]) -> str:
    """The whole page."""
    names = ", ".join(run.name for run in runs)
    title = names if len(runs) == 1 else counted(len(runs), "training")
    return page(title, *_parts(runs), subtitle="" if len(runs) == 1 else names)


def _parts(runs: Sequence[Told]) -> Iterator[Html]:
    yield from (_summary(run, named=len(runs) > 1) for run in runs)
    yield section("How they went" if len(runs) > 1 else "How it went", tuning(), side_by_side(*_charts(runs)))
    yield section("Time by part", side_by_side(*(_times(run) for run in runs)))
    if accounts := [_account(run.name, run.account) for run in runs if run.account is not None]:
        yield section("All time, over all processes", side_by_side(*accounts), _meanings())
    for run in runs:
        if run.samples:
            yield section(_of("Samples", run, runs), *_samples(run))
    for run in runs[1:]:
        yield section(f"What differs in {run.name} from {runs[0].name}", _differences(runs[0].spec, run.spec))
    for run in runs:
        if run.parent is not None and isinstance(run.parent.spec, TrainSpec):
            parent = "/".join(run.parent.path.absolute().parts[-2:])
            yield section(
                f"What differs in {run.name} from its parent {parent}",
                _differences(run.parent.spec, run.spec),
            )
    for run in runs:
        yield section(_of("Spec", run, runs), _spec(run.spec))


def _of(title: str, run: Told, runs: Sequence[Told]) -> str:
    return title if len(runs) == 1 else f"{title} of {run.name}"


def _summary(run: Told, *, named: bool) -> Html:
    steps, seconds = max(run.series.get("loss", {0: 0.0})), run.result.get("seconds")
    rows: list[tuple[str, Child]] = [
        ("run", run.name) if named else ("folder", str(run.run.path)),
        ("spec hash", spec_hash(run.spec)[:12]),
        ("state", run.run.record.status.value),
        ("steps", f"{steps:,} of {run.spec.schedule.steps:,}"),
    ]
    told = {
        "loss, last": run.last("loss"),
        "loss on held-out clips, last": run.last("validation/loss"),
        "samples per second, last": run.last("samples_per_second"),
        "most memory, GiB": run.last("peak_gib"),
    }
    rows += [(name, number(value)) for name, value in told.items() if value is not None]
    if seconds is not None:
        rows.append(("time", str(timedelta(seconds=round(seconds)))))
    return facts(*rows)


def _charts(runs: Sequence[Told]) -> Iterator[Html]:
    for title, name in CURVES.items():
        series = {run.name: run.series[name] for run in runs if name in run.series}
        if series:
            yield _curves(title, series)
    for run in runs:
        levels = {
            f"sigma {name.removeprefix(_LEVEL)}": series
            for name, series in run.series.items()
            if name.startswith(_LEVEL)
        }
        if levels:
            yield _curves(_of("Loss on held-out clips by noise level", run, runs), levels)


def _curves(title: str, series: dict[str, Series]) -> Html:
    thinned = {name: _thinned(one) for name, one in series.items()}
    steps = sorted({step for one in thinned.values() for step in one})
    return curves(
        title,
        steps,
        {name: [one.get(step) for step in steps] for name, one in thinned.items()},
        x_label="step",
        tunable=True,
    )


def _thinned(series: Series) -> dict[int, float]:
    """At most `POINTS` means of neighbouring steps, each at the last of them."""
    steps = sorted(step for step, value in series.items() if math.isfinite(value))
    width = math.ceil(len(steps) / POINTS) or 1
    groups = (steps[at : at + width] for at in range(0, len(steps), width))
    return {group[-1]: math.fsum(series[step] for step in group) / len(group) for group in groups}


def _times(run: Told) -> Html:
    spent = {
        name.removeprefix(_PART): math.fsum(series.values())
        for name, series in run.series.items()
        if name.startswith(_PART)
    }
    shown = sorted(((part, one) for part, one in spent.items() if one > 0), key=lambda pair: -pair[1])
    return bars(run.name, shown, "s")


def _account(name: str, account: Account) -> Html:
    shown = [(part, spent) for part, spent in account.seconds.items() if spent > 0]
    return bars(f"{name}: {account.whole:,.0f} s, {counted(account.processes, 'start')}", shown, "s")


def _meanings() -> Html:
    return tag("p", "; ".join(f"{part}: {meaning}" for part, meaning in PARTS.items()), class_="faint")


def _samples(run: Told) -> Iterator[Html]:
    for step, videos in reversed(run.samples.items()):
        yield tag("h3", f"after step {step:,}")
        yield tag("div", *map(_video, videos), class_="videos")


def _video(file: Path) -> Html:
    content = base64.b64encode(file.read_bytes()).decode()
    video = tag("video", src=f"data:video/mp4;base64,{content}", controls="", loop="", muted="")
    return tag("figure", video, tag("figcaption", file.stem))


def _differences(old: TrainSpec, new: TrainSpec) -> Html:
    rows = [
        (change.path, for_person(change.old), for_person(change.new), change.role.value)
        for change in diff(old, new)
    ]
    if not rows:
        return tag("p", "Nothing.", class_="faint")
    columns = (Column("field"), Column("was"), Column("is"), Column("role", "choice"))
    return table(columns, rows, filters=len(rows) > 12)


def _spec(spec: TrainSpec) -> Html:
    rows = [(f"spec.{leaf.path}", for_person(leaf.value)) for leaf in leaves(spec, by_hash=False)]
    return table((Column("field"), Column("value")), rows)

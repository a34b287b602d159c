"""What pages show of trainings: what they are, how they went, and what they made on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    table,
    tag,
)
from mm_config.rules import counted
from mm_config.schema import RootSpec, for_person, leaves, spec_hash
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
LEVEL = "validation/by_sigma/"


def titled(title: str, run: Told, runs: Sequence[Told]) -> str:
    """A heading that names the run where there are several."""
    return title if len(runs) == 1 else f"{title} of {run.name}"


def summary(run: Told, *, named: bool) -> Html:
    """A training at a glance: by its name, or its folder where the page is about it alone."""
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


def charts(runs: Sequence[Told]) -> Iterator[Html]:
    """A chart for each number, in which the runs lie over each other; noise levels have one for each run."""
    for title, name in CURVES.items():
        series = {run.name: run.series[name] for run in runs if name in run.series}
        if series:
            yield curves_of(title, series, [name])
    for run in runs:
        names = [name for name in run.series if name.startswith(LEVEL)]
        levels = {f"sigma {name.removeprefix(LEVEL)}": run.series[name] for name in names}
        if levels:
            yield curves_of(titled("Loss on held-out clips by noise level", run, runs), levels, names)


def curves_of(title: str, series: dict[str, Series], names: Sequence[str] = ()) -> Html:
    """Lines over the steps.

    Args:
        title: What they show.
        series: Each line by what a reader calls it.
        names: What metrics.jsonl calls the lines of one run, for a page on which they go on.
    """
    thinned = {name: _thinned(one) for name, one in series.items()}
    steps = sorted({step for one in thinned.values() for step in one})
    return curves(
        title,
        steps,
        {name: [one.get(step) for step in steps] for name, one in thinned.items()},
        x_label="step",
        tunable=True,
        names=names,
    )


def _thinned(series: Series) -> dict[int, float]:
    """At most `POINTS` means of neighbouring steps, each at the last of them."""
    steps = sorted(step for step, value in series.items() if math.isfinite(value))
    width = math.ceil(len(steps) / POINTS) or 1
    groups = (steps[at : at + width] for at in range(0, len(steps), width))
    return {group[-1]: math.fsum(series[step] for step in group) / len(group) for group in groups}


def times(run: Told) -> Html:
    """Where the time of the steps went."""
    spent = {
        name.removeprefix(_PART): math.fsum(series.values())
        for name, series in run.series.items()
        if name.startswith(_PART)
    }
    shown = sorted(((part, one) for part, one in spent.items() if one > 0), key=lambda pair: -pair[1])
    return bars(run.name, shown, "s")


def accounted(name: str, account: Account) -> Html:
    """Where all time went."""
    shown = [(part, spent) for part, spent in account.seconds.items() if spent > 0]
    return bars(f"{name}: {account.whole:,.0f} s, {counted(account.processes, 'start')}", shown, "s")


def meanings() -> Html:
    """What the parts of all time are."""
    return tag("p", "; ".join(f"{part}: {meaning}" for part, meaning in PARTS.items()), class_="faint")


def samples(run: Told, source: Callable[[Path], str]) -> Iterator[Html]:
    """The videos that were made on the way, the newest first.

    Args:
        run: The training.
        source: The address of a video.
    """
    for step, videos in reversed(run.samples.items()):
        yield tag("h3", f"after step {step:,}")
        yield tag("div", *(video_figure(video.stem, source(video)) for video in videos), class_="videos")


def video_figure(caption: Child, source: str) -> Html:
    """A player with what it shows below."""
    video = tag("video", src=source, controls="", loop="", muted="", playsinline="", preload="metadata")
    return tag("figure", video, tag("figcaption", caption))


def differences(old: TrainSpec, new: TrainSpec) -> Html:
    """The fields in which a spec differs from another."""
    rows = [
        (change.path, for_person(change.old), for_person(change.new), change.role.value)
        for change in diff(old, new)
    ]
    if not rows:
        return tag("p", "Nothing.", class_="faint")
    columns = (Column("field"), Column("was"), Column("is"), Column("role", "choice"))
    return table(columns, rows, filters=len(rows) > 12)


def spec_table(spec: RootSpec) -> Html:
    """All fields of a spec."""
    rows = [(f"spec.{leaf.path}", for_person(leaf.value)) for leaf in leaves(spec, by_hash=False)]
    return table((Column("field"), Column("value")), rows)

"""An inspection as a page for a browser."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np

from mm_config.pages import (
    Cell,
    Child,
    Column,
    Html,
    bars,
    bins_of,
    curves,
    facts,
    histogram,
    number,
    page,
    section,
    side_by_side,
    table,
    tag,
)
from mm_config.rules import counted
from mm_data.looking.inspection import Group, Inspection
from mm_data.looking.peeking import Peek
from mm_data.looking.text import buckets, columns, rates, sizes

SHOWN = 12
"""Bars of one chart before the rest is one bar."""
GROUPS = 200
"""Groups of equal clips that are listed."""
NAMES = 8
"""Clips of a group that are named."""
POINTS = 200
"""Of a curve."""


def html_of(found: Inspection) -> str:
    """The whole page."""
    subtitle = f"{counted(found.clips, 'clip')}, {len(found.peeks):,} of them looked at"
    return page(found.subject.title, *_parts(found), subtitle=subtitle)


def _parts(found: Inspection) -> Iterator[Html]:
    numbers, taken = found.numbers, found.counts.clips if found.counts else None
    whole = len(numbers.fps) == found.clips
    lasting = str(timedelta(seconds=round(float(numbers.seconds.sum())))) if whole else "unknown"
    yield facts(
        ("clips", number(found.clips)),
        *([("in training", number(taken))] if taken is not None else []),
        ("hours, minutes, seconds", lasting),
        ("left out", number(sum(found.left_out.values()))),
        ("can't be read, of those looked at", number(sum(found.unreadable.values()))),
        ("groups of equal clips", number(len(found.equal))),
        ("groups that look alike", number(len(found.alike))),
    )
    if found.too_long:
        text = f"Captions with more tokens than the text encoder takes: {found.too_long:,}"
        yield tag("p", text, class_="warn")
    if found.problem:
        yield tag("p", f"A training would not begin: {found.problem}", class_="warn")
    yield section("What is left out", *_left_out(found))
    if found.counts:
        yield section("Buckets", *_buckets(found))
    yield section("Sizes and lengths", side_by_side(*_charts(found)))
    if found.equal or found.alike:
        yield section("Twice", *_twice(found))
    yield section("Clips", _clips(found))


def _left_out(found: Inspection) -> Iterator[Html]:
    charts = [
        bars(title, counted.items())
        for title, counted in (
            ("clips that are left out, by reason", found.left_out),
            ("clips that can't be read, of those looked at", found.unreadable),
        )
        if counted
    ]
    yield side_by_side(*charts) if charts else tag("p", "Nothing.", class_="faint")


def _buckets(found: Inspection) -> Iterator[Html]:
    listed = list(buckets(found))
    yield side_by_side(bars("clips of each bucket", [(name, clips) for name, clips, _, _ in listed]))
    heads = [Column("frames x height x width"), Column("clips", "number"), Column("batches in a pass")]
    yield table([*heads, Column("tail", "number")], listed, filters=False)


def _charts(found: Inspection) -> Iterator[Html]:
    for name, values, unit in columns(found):
        if not len(values):
            continue
        yield histogram(name, bins_of(values.tolist()), unit)
    yield bars("sizes, width x height", _largest(sizes(found)))
    yield bars("frames by second", _largest(rates(found)))
    seconds = np.sort(found.numbers.seconds)
    if len(seconds) > 1 and seconds[0] < seconds[-1]:
        at = np.unique(np.quantile(seconds, np.linspace(0, 1, POINTS)).round(3))
        share = 1 - np.searchsorted(seconds, at - 5e-4) / len(seconds)
        what = {"share of clips": share.round(5).tolist()}
        yield curves("clips that last at least so long", at.tolist(), what, x_label="seconds")


def _largest(counted: Counter[str]) -> list[tuple[str, int]]:
    rest = counted.total() - sum(count for _, count in counted.most_common(SHOWN))
    return [*counted.most_common(SHOWN), *([("all others", rest)] if rest else [])]


def _twice(found: Inspection) -> Iterator[Html]:
    shown = [("same bytes", group) for group in found.equal[:GROUPS]]
    shown += [("same picture", group) for group in found.alike[:GROUPS]]
    left = len(found.equal) + len(found.alike) - len(shown)
    if left:
        yield tag("p", f"{left:,} further groups are not listed here.", class_="faint")
    rows = [(how, len(group), _names(found, group)) for how, group in shown]
    yield table([Column("what", "choice"), Column("clips", "number"), Column("which")], rows)


def _names(found: Inspection, group: Group) -> str:
    more = f" and {len(group) - NAMES:,} more" if len(group) > NAMES else ""
    return ", ".join(found.names(group[:NAMES])) + more


def _clips(found: Inspection) -> Html:
    heads = [
        Column("picture", "picture"),
        Column("clip"),
        Column("caption"),
        *([Column("becomes", "choice")] if found.subject.data else []),
        Column("size", "choice"),
        Column("seconds", "number"),
        Column("frames", "number"),
        Column("frames/s", "number"),
    ]
    names = found.names(peek.index for peek in found.peeks)
    rows = (
        _row(name, peek, [state] if found.subject.data else [])
        for name, peek, state in zip(names, found.peeks, found.states, strict=True)
    )
    return table(heads, rows)


def _row(name: str, peek: Peek, state: Sequence[str]) -> list[Child | Cell]:
    picture: Child = tag("span", peek.bad, class_="warn")
    if peek.picture:
        data = base64.b64encode(peek.picture).decode()
        picture = tag("img", src=f"data:image/jpeg;base64,{data}", alt=name)
    captions = peek.record.captions or (peek.record.caption,)
    measured: list[Child | Cell] = ["", None, None, None]
    if found := peek.measured:
        fps = float(found.fps)
        seconds = found.num_frames / fps if fps else 0.0
        measured = [f"{found.width}x{found.height}", seconds, found.num_frames, round(fps, 3)]
    return [picture, name, "\n".join(captions), *state, *measured]

"""An inspection for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from mm_config.console import print_lines, table
from mm_data.looking.inspection import Group, Inspection, shape_name
from mm_data.looking.peeking import Peek

SHOWN = 8
"""Lines of a list before it is cut."""
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def tell(found: Inspection) -> None:
    """Prints what was found."""
    rows = [("clips", f"{found.clips:,}, of them {len(found.peeks):,} looked at")]
    rows += [(name, _spread(values, unit)) for name, values, unit in columns(found) if len(values)]
    rows += [("sizes", _most(sizes(found))), ("rates", _most(rates(found)))]
    table(found.subject.title, [row for row in rows if row[1]])
    if found.too_long:
        print_lines([f"captions with more tokens than the text encoder takes: {found.too_long:,}"])
    if found.tokens_unknown:
        print_lines([f"tokens of captions are unknown: {found.tokens_unknown}"])
    if found.problem:
        print_lines([f"a training would not begin: {found.problem}"])
    for title, counted in (("left out", found.left_out), ("can't be read", found.unreadable)):
        if counted:
            table(title, [(f"{count:,}", reason) for reason, count in counted.items()], ("clips", "why"))
    if found.counts:
        given = [(name, f"{clips:,}", batches, tail) for name, clips, batches, tail in buckets(found)]
        table("buckets", given, ("frames x height x width", "clips", "batches in a pass", "tail"))
    for title, groups in (("equal", found.equal), ("look alike", found.alike)):
        if groups:
            shown = [(len(group), ", ".join(found.names(group[:3]))) for group in groups[:SHOWN]]
            more = [("", f"and {len(groups) - SHOWN:,} more")] if len(groups) > SHOWN else []
            table(f"{title}: {len(groups):,} groups", [*shown, *more], ("clips", "such as"))


def columns(found: Inspection) -> Iterator[tuple[str, np.ndarray, str]]:
    """What is measured of clips, with its unit."""
    numbers = found.numbers
    yield "durations", numbers.seconds, "s"
    yield "frames of clips", numbers.frames, "frames"
    yield "words of captions", numbers.words, "words"
    yield "tokens of captions, of clips looked at", np.array(found.tokens, np.int64), "tokens"
    yield "characters of captions", numbers.characters, "characters"


def sizes(found: Inspection) -> Counter[str]:
    """How many clips have which size."""
    width, height = (side.astype(np.int64) for side in (found.numbers.width, found.numbers.height))
    pairs, counts = np.unique(width << 32 | height, return_counts=True)
    shown = (f"{pair >> 32}x{pair & 0xFFFFFFFF}" for pair in pairs.tolist())
    return Counter(dict(zip(shown, counts.tolist(), strict=True)))


def rates(found: Inspection) -> Counter[str]:
    """How many clips have which frame rate."""
    values, counts = np.unique(found.numbers.fps.round(3), return_counts=True)
    shown = (f"{value:g}" if value else "images" for value in values.tolist())
    return Counter(dict(zip(shown, counts.tolist(), strict=True)))


def buckets(found: Inspection) -> Iterator[tuple[str, int, str, int]]:
    """Each bucket: its name, its clips, its batches in a pass and the samples of its tail."""
    for one in found.counts.given if found.counts else ():
        batches = f"{float(one.batches):,.6g} of {one.size}"
        yield shape_name(one.shape), sum(one.clips), batches, one.tail


def as_json(found: Inspection) -> Mapping[str, Any]:
    """All that was found but the pictures."""
    return {
        "clips": found.clips,
        "looked_at": [
            _looked(name, peek, state)
            for name, peek, state in zip(
                found.names(peek.index for peek in found.peeks), found.peeks, found.states, strict=True
            )
        ],
        "quantiles": {name: _quantiles(values) for name, values, _ in columns(found) if len(values)},
        "sizes": sizes(found),
        "rates": rates(found),
        "left_out": found.left_out,
        "unreadable": found.unreadable,
        "problem": found.problem,
        "too_many_tokens": found.too_long,
        "tokens_unknown": found.tokens_unknown,
        "buckets": [
            {"shape": name, "clips": clips, "batches": batches, "tail": tail}
            for name, clips, batches, tail in buckets(found)
        ],
        "equal": _named(found, found.equal),
        "alike": _named(found, found.alike),
    }


def _looked(name: str, peek: Peek, state: str) -> Mapping[str, Any]:
    measured = peek.measured
    return {
        "name": name,
        "caption": peek.record.caption,
        "state": state,
        "bad": peek.bad,
        "looks": None if peek.looks is None else f"{peek.looks:016x}",
        "measured": measured and {**attrs.asdict(measured), "fps": float(measured.fps)},
    }


def _named(found: Inspection, groups: Sequence[Group]) -> list[list[str]]:
    return [found.names(group) for group in groups]


def _quantiles(values: np.ndarray) -> dict[str, float]:
    found = np.quantile(values, QUANTILES).tolist()
    return {f"{share:g}": round(value, 3) for share, value in zip(QUANTILES, found, strict=True)}


def _spread(values: np.ndarray, unit: str) -> str:
    low, _, middle, _, high = _quantiles(values).values()
    return f"{low:g} to {high:g} {unit}, half of them at most {middle:g}"


def _most(counted: Counter[str]) -> str:
    shown = [f"{name} ({count:,})" for name, count in counted.most_common(SHOWN)]
    return ", ".join([*shown, *([f"and {len(counted) - SHOWN} more"] if len(counted) > SHOWN else [])])

"""What an index holds, counted: `stats.json`, and the same for a person."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from mm_config.console import print_lines, table
from mm_config.rules import counted
from mm_data.index.listed import LeftOut
from mm_data.index.samples import Mismatch, Sample

_SHOWN, _FIRST = 8, 3
_NUMBER = re.compile(r"(?<![A-Za-wyz])\d+(\.\d+)?")
"""Not those in names such as mp4, but those in sizes such as 640x480."""
_DURATIONS = (1, 2, 5, 10, 30, 60, 300, 3600)
"""Ends of the ranges that durations are counted in, in seconds."""


def stats_of(
    samples: Sequence[Sample], left_out: Sequence[LeftOut], mismatches: Sequence[Mismatch]
) -> dict[str, Any]:
    """Counts of samples, by what a plan and a reader look at; of files where `files` says so."""
    medias = {(sample.media.sha256, sample.listed.name): sample.media for sample in samples}.values()
    seconds = [_seconds(sample) for sample in samples]
    bad = {one.name: one for one in left_out if one.is_bad}.values()
    return {
        "samples": len(samples),
        "frames": sum(sample.num_frames for sample in samples),
        "hours": round(sum(seconds) / 3600, 6),
        "images": sum(sample.media.is_image for sample in samples),
        "several_captions": sum(len(sample.listed.captions) > 1 for sample in samples),
        "sizes": _counts(f"{sample.size[1]}x{sample.size[0]}" for sample in samples),
        "rates": _counts(f"{float(sample.media.fps):g}" for sample in samples if sample.media.fps),
        "durations": _counts(map(_range, (each for each in seconds if each))),
        "files": {
            "count": len(medias),
            "bytes": sum(media.size for media in medias),
            "equal": len(medias) - len({media.sha256 for media in medias}),
            "containers": _counts(media.container for media in medias),
            "codecs": _counts(media.codec for media in medias),
            "longest_gop": max((media.gop for media in medias), default=0),
            **{
                name: sum(map(bool, (getattr(media, name) for media in medias)))
                for name in ("variable", "turns", "mirrored", "open_gop", "edited")
            },
        },
        "left_out": {
            "count": len(left_out),
            "reasons": _counts(_reasons(left_out)),
            "bad_files": len(bad),
            "first_bad": [f"{one.name} ({one.reason})" for one in islice(bad, _FIRST)],
        },
        "mismatches": _counts(one.field for one in mismatches),
    }


def reason_of(one: LeftOut) -> str:
    """Why a clip is left out, in the same words as others for which only numbers differ."""
    return _NUMBER.sub("N", one.reason)


def _reasons(left_out: Sequence[LeftOut]) -> list[str]:
    """Why each clip is left out: without its numbers where those of others differ from them."""
    found: dict[str, set[str]] = {}
    for one in left_out:
        found.setdefault(reason_of(one), set()).add(one.reason)
    return [one.reason if len(found[reason_of(one)]) == 1 else reason_of(one) for one in left_out]


def tell(stats: Mapping[str, Any], left_out: Sequence[LeftOut], mismatches: Sequence[Mismatch]) -> None:
    """Prints what an index holds, what is left out of it and why, and what its source says wrong."""
    files = stats["files"]
    traits = {
        "of variable rate": "variable",
        "turned": "turns",
        "mirrored": "mirrored",
        "with open GOPs": "open_gop",
        "with edit lists": "edited",
    }
    rows = [
        ("samples", f"{stats['samples']:,}, pictures among them: {stats['images']:,}"),
        ("frames", f"{stats['frames']:,} in {timedelta(seconds=round(3600 * stats['hours']))} hours"),
        (
            "files",
            f"{files['count']:,} with {files['bytes'] / 1e9:.3f} GB, {files['equal']:,} equal to others",
        ),
        *((name, _most(stats[name])) for name in ("sizes", "rates", "durations")),
        ("codecs", f"{_most(files['codecs'])}, in {_most(files['containers'])}"),
        ("keyframes", f"{counted(files['longest_gop'], 'frame')} from one to the next at most"),
        ("files to mind", ", ".join(f"{files[key]:,} {what}" for what, key in traits.items() if files[key])),
    ]
    table("index", [row for row in rows if row[1]])
    if left_out:
        examples = dict(reversed(list(zip(_reasons(left_out), left_out, strict=True))))
        reasons = stats["left_out"]["reasons"]
        named = {why: f"{one.name} ({one.place})" for why, one in examples.items()}
        shown = [(count, why, named[why]) for why, count in reasons.items()]
        table(f"left out: {len(left_out):,}", shown, ("clips", "why", "first"))
    if mismatches:
        first = {one.field: one for one in reversed(mismatches)}
        counts = [
            (count, field, f"{first[field].declared:g}", f"{first[field].measured:g}", first[field].place)
            for field, count in stats["mismatches"].items()
        ]
        table("declared, but measured otherwise", counts, ("clips", "value", "declared", "measured", "first"))


def tell_differences(lines: Sequence[str]) -> None:
    """Prints what of an index's content is not as before, the first of it."""
    print_lines(lines[:_SHOWN])
    if len(lines) > _SHOWN:
        print_lines([f"and {len(lines) - _SHOWN:,} more"])


def _seconds(sample: Sample) -> float:
    fps = sample.media.fps
    return float(sample.num_frames / fps) if fps else 0.0


def _range(seconds: float) -> str:
    end = next((end for end in _DURATIONS if seconds < end), None)
    return f"{_DURATIONS[-1]} s and more" if end is None else f"under {end} s"


def _counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value comes, the most frequent first, then by name."""
    return dict(sorted(Counter(values).items(), key=lambda one: (-one[1], one[0])))


def _most(counts: Mapping[str, int]) -> str:
    """The most frequent values for one line."""
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join([*shown, *([f"and {len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else [])])

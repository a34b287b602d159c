"""What an import tells: what became of each key, and how the result differs from what is known."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from mm_config.importing.nodes import as_in_file
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import Change, for_person
from mm_config.schema.fields import ABSENT


@attrs.frozen
class Entry:
    """What became of one key."""

    verdict: Verdict
    """What became of it."""
    text: str
    """Where it went, or why nowhere."""
    place: str = ""
    """`file:line`; empty where the line is about a missing key."""
    key: str = ""
    """The key in its file."""
    value: Any = ABSENT
    """Its value."""
    is_default: bool = False
    """Whether it is what the tool takes anyway."""


@attrs.frozen
class Comparison:
    """How the imported spec differs from another."""

    name: str
    """What it is held against."""
    changes: tuple[Change, ...]
    """From the other to the imported one."""


@attrs.frozen
class Report:
    """The report of one import."""

    family: str
    """Such as `wan22.T2V_A14B`; empty where no family has the network."""
    entries: tuple[Entry, ...]
    """In the files' order, then what belongs to no single key."""
    comparisons: tuple[Comparison, ...]
    """With specs of this repository."""
    flags: tuple[str, ...]
    """`--location NAME=PATH` and `--runs-dir DIR`, with the paths of the files."""
    launcher: tuple[str, ...]
    """The words that start the run on its ranks, before the experiment's file."""
    asks: tuple[str, ...] = ()
    """Words of `mm generate` for what is a request's; empty where the experiment itself runs."""
    ranks: int = 1
    """Ranks that the run is for."""
    more: Mapping[str, tuple[str, ...]] = {}
    """What else is to be told, by its title."""
    grouped: bool = False
    """Whether equal findings of one file share a line."""
    cannot_run: tuple[str, ...] = ()
    """What of the spec its runner can't do yet."""

    def command(self, experiment: str) -> str:
        """The command line that runs the experiment as the files ran the other tool."""
        if not self.asks:
            return shlex.join([*self.launcher, experiment, *self.flags])
        program = ("mm",) if self.launcher == ("python",) else (*self.launcher, "-m", "mm_config")
        return shlex.join([*program, "generate", experiment, *self.asks, *self.flags])

    def of(self, verdict: Verdict) -> tuple[Entry, ...]:
        """The entries with one verdict."""
        return tuple(entry for entry in self.entries if entry.verdict is verdict)

    def lines(self, experiment: str) -> Iterator[str]:
        """The page.

        Args:
            experiment: The file that was written.
        """
        yield f"family   {self.family or 'none: no published network has these sizes'}"
        yield f"run it   {self.command(experiment)}"
        if self.ranks > 1:
            yield f"plan it  mm plan {shlex.quote(experiment)} --world-size {self.ranks}"
        if self.cannot_run:
            yield from ("", f"can't be run yet ({len(self.cannot_run)})")
            yield from (f"  {text}" for text in self.cannot_run)
        for verdict in Verdict:
            entries = self.of(verdict)
            if entries:
                yield from ("", f"{verdict.value} ({len(entries)})")
                yield from _shared_lines(entries) if self.grouped else map(_entry_line, entries)
        for compared in self.comparisons:
            yield from ("", f"differs from {compared.name} ({len(compared.changes)})")
            for change in compared.changes:
                yield f"  {change.path}  {for_person(change.old)} -> {for_person(change.new)}"
        for title, texts in self.more.items():
            if texts:
                yield from ("", f"{title} ({len(texts)})")
                yield from (f"  {text}" for text in texts)

    def to_json(self, experiment: str) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "family": self.family or None,
            "experiment": experiment,
            "command": self.command(experiment),
            "entries": [
                {
                    "verdict": entry.verdict.name.lower(),
                    "place": entry.place or None,
                    "key": entry.key,
                    "value": None if entry.value is ABSENT else entry.value,
                    "text": entry.text,
                }
                for entry in self.entries
            ],
            "differences": {
                compared.name: [
                    {"path": change.path, "old": for_person(change.old), "new": for_person(change.new)}
                    for change in compared.changes
                ]
                for compared in self.comparisons
            },
            "cannot_run": list(self.cannot_run),
            "more": {title: list(texts) for title, texts in self.more.items()},
        }


def _entry_line(entry: Entry) -> str:
    # Each kind of file is given once, so that its name says which it is.
    place = f"{entry.place.rpartition('/')[2]}  " if entry.place else ""
    return f"  {place}{_said(entry, entry.key)}"


def _said(entry: Entry, key: str) -> str:
    flag = entry.value is True and key.startswith("--")
    value = "" if entry.value is ABSENT or flag else f" = {' '.join(as_in_file(entry.value).split())}"
    return f"{key}{value}  {'->' if entry.verdict is Verdict.MAPPED else '|'}  {entry.text}"


def _shared_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Keys of several networks by their last two parts, defaults that nothing reads by their reason."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        unread = entry.verdict is Verdict.DEAD and entry.is_default
        about = () if unread else (".".join(entry.key.split(".")[-2:]), repr(entry.value))
        groups.setdefault((entry.text, *about), []).append(entry)
    for (_, *about), same in groups.items():
        lines = _ranges({int(entry.place.rpartition(":")[2]) for entry in same if entry.place})
        place = f"line {lines}  " if lines else ""
        key = about[0] if len(same) > 1 and about else same[0].key
        defaults = f"{len(same)} defaults  |  {same[0].text}"
        yield f"  {place}{_said(same[0], key) if about or len(same) == 1 else defaults}"


def _ranges(lines: set[int]) -> str:
    """`3, 5-7` for 3, 5, 6, 7."""
    firsts = sorted(line for line in lines if line - 1 not in lines)
    lasts = sorted(line for line in lines if line + 1 not in lines)
    pairs = zip(firsts, lasts, strict=True)
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in pairs)

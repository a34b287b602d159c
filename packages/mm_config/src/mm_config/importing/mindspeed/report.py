"""What an import tells: what became of each key, and how the result differs from what is known."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.importing.mindspeed.book import Entry
from mm_config.importing.nodes import as_in_file
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import Change, for_person
from mm_config.schema.fields import ABSENT

_TITLES = {
    Verdict.CONFLICT: "in conflict",
    Verdict.MISSPELT: "misspelt",
    Verdict.REFUSED: "refused",
    Verdict.UNKNOWN: "unknown",
    Verdict.MAPPED: "mapped",
    Verdict.DEFAULT: "missing in the files, so MindSpeed-MM's defaults hold",
    Verdict.DERIVED: "derived",
    Verdict.DEAD: "dead there",
    Verdict.OUTSIDE: "outside the spec",
}


@attrs.frozen
class Comparison:
    """How the imported spec differs from another."""

    name: str
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
    flags: tuple[str, ...]
    """`--location NAME=PATH` and `--runs-dir DIR`, with the paths of the files."""
    launcher: tuple[str, ...]
    """The words that start the run on the script's ranks, before the experiment's file."""
    notes: tuple[str, ...] = ()
    """What was read over in the files."""

    def command(self, experiment: str) -> str:
        """The command line that runs the experiment as the script ran MindSpeed-MM."""
        return shlex.join([*self.launcher, experiment, *self.flags])

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
        for verdict, title in _TITLES.items():
            entries = self.of(verdict)
            if entries:
                yield ""
                yield f"{title} ({len(entries)})"
                yield from map(_entry_line, entries)
        for compared in self.comparisons:
            yield ""
            yield f"differs from {compared.name} ({len(compared.changes)})"
            for change in compared.changes:
                yield f"  {change.path}  {for_person(change.old)} -> {for_person(change.new)}"
        if self.notes:
            yield ""
            yield f"read over ({len(self.notes)})"
            for note in self.notes:
                yield f"  {note}"

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
            "notes": list(self.notes),
        }


def _entry_line(entry: Entry) -> str:
    flag = entry.value is True and entry.key.startswith("--")
    value = "" if entry.value is ABSENT or flag else f" = {' '.join(as_in_file(entry.value).split())}"
    # Each kind of file is given once, so that its name says which it is.
    place = f"{entry.place.rpartition('/')[2]}  " if entry.place else ""
    return f"  {place}{entry.key}{value}  {'->' if entry.verdict is Verdict.MAPPED else '|'}  {entry.text}"

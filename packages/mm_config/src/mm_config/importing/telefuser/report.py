"""What became of every value of a dump, for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.nodes import as_in_file
from mm_config.importing.verdict import Verdict
from mm_config.schema.diff import Change, for_person
from mm_config.schema.identity import JSON
from mm_config.schema.types import is_tuple


@attrs.frozen
class Entry:
    """One value of the dump."""

    key: str
    line: int
    value: Any
    verdict: Verdict
    text: str
    """Where it went, or why nowhere."""
    is_default: bool = False
    """Whether it is what TeleFuser takes anyway."""


@attrs.frozen
class Hint:
    """Where weights of a logical name lay."""

    name: str
    path: str
    """Empty where the dump does not say."""
    note: str

    @property
    def flag(self) -> str:
        """What to give to the experiment."""
        return f"--location {self.name}={self.path or 'DIR'}"


@attrs.frozen
class Report:
    """What became of a dump."""

    file: Path
    family: str
    entries: tuple[Entry, ...]
    absent: tuple[str, ...]
    """Values of the spec that no dump holds, each as `spec.sampler.shift = 12.0 (...)`."""
    warnings: tuple[str, ...]
    """What TeleFuser does otherwise than its files say, or than Wan's authors."""
    locations: tuple[Hint, ...]
    experiment: str
    """What the spec was compared with."""
    changes: tuple[Change, ...]
    """From our experiment with the official values to this spec."""
    ranks: int = 1
    """Ranks that the spec's degrees make."""

    @property
    def flags(self) -> tuple[str, ...]:
        """`--location` and `NAME=PATH` for each place that the dump names."""
        found = dict.fromkeys((hint.name, hint.path) for hint in self.locations if hint.path)
        return tuple(word for name, path in found for word in ("--location", f"{name}={path}"))

    @property
    def launcher(self) -> tuple[str, ...]:
        """The words that start the run, before the experiment's file."""
        return ("python",) if self.ranks == 1 else ("torchrun", f"--nproc-per-node={self.ranks}")

    def command(self, experiment: str) -> str:
        """The command line that runs the experiment.

        Args:
            experiment: Its file.
        """
        return shlex.join([*self.launcher, experiment, *self.flags])

    def lines(self, experiment: str) -> Iterator[str]:
        """The report as text; equal findings of several keys share a line.

        Args:
            experiment: The file that was written.
        """
        yield f"family   {self.family}"
        yield f"run it   {self.command(experiment)}"
        for verdict in Verdict:
            found = [entry for entry in self.entries if entry.verdict is verdict]
            if found:
                yield from ("", f"{verdict.value} ({len(found)})")
                unread = [entry for entry in found if verdict is Verdict.DEAD and entry.is_default]
                yield from _grouped([entry for entry in found if entry not in unread])
                yield from _unread(unread)
        yield from ("", "not in the dump: the official values")
        yield from (f"  {text}" for text in self.absent)
        yield from ("", "mind")
        yield from (f"  {text}" for text in self.warnings)
        if self.locations:
            yield from ("", "where the weights lay")
            yield from (
                f"  {hint.flag}{f'  ({hint.note})' if hint.note else ''}"
                for hint in dict.fromkeys(self.locations)
            )
        yield from ("", f"other than {self.experiment}" if self.changes else f"as {self.experiment}")
        yield from (f"  {_change(change)}" for change in self.changes)

    def to_json(self, experiment: str) -> dict[str, JSON]:
        """The report as data.

        Args:
            experiment: The file that was written.
        """
        return {
            "file": str(self.file),
            "experiment": experiment,
            "command": self.command(experiment),
            "family": self.family,
            "entries": [
                {
                    "key": entry.key,
                    "line": entry.line,
                    "value": list(entry.value) if is_tuple(entry.value) else entry.value,
                    "verdict": entry.verdict.name.lower(),
                    "text": entry.text,
                }
                for entry in self.entries
            ],
            "absent": list(self.absent),
            "warnings": list(self.warnings),
            "locations": [
                {"name": hint.name, "path": hint.path, "note": hint.note} for hint in self.locations
            ],
            "compared_with": self.experiment,
            "changes": [_change(change) for change in self.changes],
        }


def _change(change: Change) -> str:
    return f"{change.path}: {for_person(change.old)} there, {for_person(change.new)} here"


def _grouped(entries: list[Entry]) -> Iterator[str]:
    """Lines `12, 40  key = value: text`; keys of several networks are told by their last two parts."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        tail = ".".join(entry.key.split(".")[-2:])
        groups.setdefault((tail, repr(entry.value), entry.text), []).append(entry)
    for (tail, _, text), same in groups.items():
        lines = ", ".join(str(line) for line in dict.fromkeys(entry.line for entry in same))
        key = same[0].key.removeprefix("layer2_inference_config.") if len(same) == 1 else tail
        yield f"  line {lines}: {key} = {as_in_file(same[0].value)}: {text}"


def _unread(entries: list[Entry]) -> Iterator[str]:
    """One line for all defaults that are dead for one reason."""
    for text in dict.fromkeys(entry.text for entry in entries):
        same = [entry for entry in entries if entry.text == text]
        lines = _ranges([entry.line for entry in same])
        keys = "a default" if len(same) == 1 else f"{len(same)} defaults"
        yield f"  line {lines}: {keys}: {text}"


def _ranges(lines: list[int]) -> str:
    """`3, 5-7` for 3, 5, 6, 7."""
    ranges: list[list[int]] = []
    for line in sorted(set(lines)):
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)

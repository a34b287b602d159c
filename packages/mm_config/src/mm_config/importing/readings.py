"""Readings: what a file says of one field of a spec, because of which key, and what is told of it.

An importer is a list of pure functions: each takes the facts of the files and gives the readings of one
field or group of fields. Their order decides the order of lines alone, but for one rule: of two readings of
one field the first holds, and the second is told as a conflict where it says something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from mm_config.importing.facts import Fact, typed
from mm_config.importing.nodes import as_in_file
from mm_config.importing.report import Entry
from mm_config.importing.values import ReadValue, in_report
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import Problem
from mm_config.schema.fields import ABSENT

Because: TypeAlias = "Fact | str"
"""A value of a file, or the name of a key that is missing."""


@attrs.frozen
class Reading:
    """What one key says."""

    because: Because
    """Where it stands, or which key is missing."""
    verdict: Verdict
    """What became of the key."""
    told: str
    """What a person reads, or nothing; of several readings of one key the lines are joined."""
    target: str = ""
    """The canonical path without `spec.`; empty where nothing goes into the spec."""
    value: Any = ABSENT
    """What goes there."""


def given(fact: Because, target: str, value: Any, told: str = "") -> Reading:
    """A value that goes into the spec; without `told` the line says which one and where."""
    verdict = Verdict.DEFAULT if isinstance(fact, str) else Verdict.MAPPED
    return Reading(fact, verdict, told or f"{target} = {in_report(value)}", target, value)


def follows(fact: Because, target: str, value: Any, told: str = "") -> Reading:
    """A value that goes into the spec because of others."""
    return Reading(fact, Verdict.DERIVED, told or f"{target} = {in_report(value)}", target, value)


def silent(fact: Because, target: str, value: Any) -> Reading:
    """A value of which no line is told, for a line of the same key tells it, or it is as always."""
    return Reading(fact, Verdict.DERIVED, "", target, value)


def said(verdict: Verdict, fact: Because, told: str) -> Reading:
    """A line without a value."""
    return Reading(fact, verdict, told)


def refused(fact: Fact, why: str) -> Reading:
    """A value that no spec of ours can say."""
    return Reading(fact, Verdict.REFUSED, why)


@attrs.frozen
class Composed:
    """All readings of an import together."""

    values: Mapping[str, Any]
    """By canonical path."""
    because: Mapping[str, Because]
    """What each value comes from."""
    entries: tuple[Entry, ...]
    """One line for each fact that was read, and one for each missing key."""
    problems: tuple[Problem, ...]
    """What was refused."""


def tried(fact: Fact, read: ReadValue) -> tuple[Any, tuple[Reading, ...]]:
    """A fact's value in our terms, or None and the refusal."""
    try:
        return read(typed(fact)), ()
    except ValueError as error:
        return None, (refused(fact, str(error)),)


def composed(readings: Iterable[Reading]) -> Composed:
    """The values of the readings, and their lines."""
    values: dict[str, Any] = {}
    because: dict[str, Because] = {}
    lines: dict[Because, list[Reading]] = {}
    for reading in readings:
        if reading.value is not ABSENT:
            first = because.setdefault(reading.target, reading.because)
            held = values.setdefault(reading.target, reading.value)
            if first != reading.because and held != reading.value:
                reading = said(Verdict.CONFLICT, reading.because, _held(reading.target, held, first))
        if reading.told:
            lines.setdefault(reading.because, []).append(reading)
    found = [(about, _strongest(several)) for about, several in lines.items()]
    return Composed(
        values,
        because,
        tuple(_entry(about, several) for about, several in found),
        tuple(
            Problem(about.place, f"{about.path} is {as_in_file(about.value)}: {reading.told}")
            for about, several in found
            for reading in several
            if reading.verdict is Verdict.REFUSED and isinstance(about, Fact)
        ),
    )


def _held(target: str, value: Any, because: Because) -> str:
    where = f"{because.place} {because.path}" if isinstance(because, Fact) else because
    return f"{where} says {target} = {in_report(value)}, and that holds"


_STRENGTH = tuple(Verdict)
"""What a report has first says most."""


def _strongest(readings: list[Reading]) -> list[Reading]:
    verdict = min((reading.verdict for reading in readings), key=_STRENGTH.index)
    return [reading for reading in readings if reading.verdict is verdict]


def _entry(about: Because, readings: list[Reading]) -> Entry:
    text = ", ".join(dict.fromkeys(reading.told for reading in readings))
    if isinstance(about, str):
        return Entry(readings[0].verdict, text, key=about)
    return Entry(readings[0].verdict, text, about.place, about.path, about.value)

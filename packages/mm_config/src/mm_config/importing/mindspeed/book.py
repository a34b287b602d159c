"""The book of one import: every fact, what has become of it, and the values that go into the spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from mm_config.importing.facts import Fact, generic
from mm_config.importing.mindspeed.rows import FLAG, Table
from mm_config.importing.nodes import Leaf, as_in_file
from mm_config.importing.report import Entry
from mm_config.importing.rows import Row
from mm_config.importing.values import ReadValue, in_report, number_of
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import Problem
from mm_config.schema.fields import ABSENT

TEXT_KINDS = (FLAG, "environment variable", "shell variable")


@attrs.define
class Book:
    """Written while an import goes on."""

    table: Table
    """What becomes of each."""
    facts: tuple[Fact, ...]
    """All that the files give."""
    generation: bool
    """Whether an inference spec is made; else a training spec."""
    reached: Mapping[str, tuple[str, ...]] = {}
    """The flags that a script's variable reaches, by its name."""
    entries: dict[int, Entry] = attrs.Factory(dict[int, Entry])
    """By the fact's place in `facts`."""
    further: list[Entry] = attrs.Factory(list[Entry])
    """What belongs to no single fact."""
    problems: list[Problem] = attrs.Factory(list[Problem])
    """What is wrong with them, as it is found."""
    changes: dict[str, Any] = attrs.Factory(dict[str, Any])
    """Values for the spec by canonical path."""
    origins: dict[str, Fact] = attrs.Factory(dict[str, Fact])
    """The fact that gave a change."""
    paths: dict[str, str] = attrs.Factory(dict[str, str])
    """Paths that files give, by the name that `--location` knows them under, and `--runs-dir`."""
    conditions: dict[str, bool] = attrs.Factory(dict[str, bool])
    """Whether each condition of the table holds, by its name."""
    _numbers: dict[tuple[str, str], int] = attrs.field(init=False, factory=dict[tuple[str, str], int])
    """A read fact's place in `facts` by kind and path of its row."""
    _rows: dict[int, Row] = attrs.field(init=False, factory=dict[int, Row])
    """A read fact's row by its place in `facts`."""
    _places: dict[int, int] = attrs.field(init=False, factory=dict[int, int])
    """The place of each fact in `facts` by its `id`."""

    def __attrs_post_init__(self) -> None:
        self._places = {id(fact): number for number, fact in enumerate(self.facts)}
        for number, fact in enumerate(self.facts):
            row = self.table.row_of(fact.source.kind, generic(fact.path))
            if row is None:
                continue
            key = (row.kind, row.path)
            earlier = self._numbers.get(key)
            if earlier is not None and "[]" not in row.path:
                before = self.facts[earlier]
                same = before.value == fact.value
                text = (
                    f"is given again on line {fact.line}, {'the same' if same else 'and the last one holds'}"
                )
                verdict = Verdict.DERIVED if same else Verdict.CONFLICT
                self.entries[earlier] = self._entry(before, verdict, text, row)
            self._numbers[key] = number
            self._rows[number] = row

    def row(self, fact: Fact) -> Row | None:
        """The row of a fact."""
        return self.table.row_of(fact.source.kind, generic(fact.path))

    def fact(self, kind: str, path: str) -> Fact | None:
        """The last fact of a key."""
        number = self._numbers.get((kind, path))
        return None if number is None else self.facts[number]

    def all_of(self, kind: str, path: str) -> list[Fact]:
        """All facts of a key with `[]`."""
        return [self.facts[n] for n, row in self._rows.items() if (row.kind, row.path) == (kind, path)]

    def has(self, kind: str, start: str = "") -> bool:
        """Whether any fact of this kind has a path that starts so."""
        return any(key[0] == kind and key[1].startswith(start) for key in self._numbers)

    def raw(self, kind: str, path: str, default: Any = None) -> Any:
        """What a file says of a key, numbers of scripts as numbers; `default` where the key is missing."""
        fact = self.fact(kind, path)
        return default if fact is None else typed(fact)

    def get(self, kind: str, path: str, otherwise: Any = None) -> Any:
        """The value of a key in our terms: the file's, MindSpeed-MM's default, or `otherwise`.

        A default holds only where another key of the same group is given. A value that can't be read is
        reported when its row is gone through, and counts as missing here.
        """
        row = self.table.row_of(kind, path)
        if row is None or row.read is None:
            return self.raw(kind, path, otherwise)
        fact = self.fact(kind, path)
        value = typed(fact) if fact is not None else row.default if self._grouped(row) else ABSENT
        if value is ABSENT:
            return otherwise
        try:
            return row.read(value)
        except ValueError:
            return otherwise

    def read(self, fact: Fact | None, read: ReadValue) -> Any:
        """A fact's value in our terms; None where there is no fact, or its value is refused."""
        if fact is None:
            return None
        try:
            return read(typed(fact))
        except ValueError as error:
            self.refuse(fact, str(error))
            return None

    def _grouped(self, row: Row) -> bool:
        if row.kind in TEXT_KINDS:
            return self.has(row.kind)
        parent = row.path.rpartition(".")[0]
        return any(kind == row.kind and path.rpartition(".")[0] == parent for kind, path in self._numbers)

    def set(self, target: str, value: Any, fact: Fact | None = None) -> None:
        """Puts a value into the spec."""
        self.changes[target] = value
        if fact is not None:
            self.origins[target] = fact

    def mark(self, fact: Fact | None, verdict: Verdict, text: str) -> None:
        """Says what becomes of a fact; what was said before is replaced, but not a conflict."""
        if fact is None:
            return
        number = self._places[id(fact)]
        before = self.entries.get(number)
        if before is None or before.verdict is not Verdict.CONFLICT or verdict is Verdict.CONFLICT:
            self.entries[number] = self._entry(fact, verdict, text, self._rows.get(number))

    def map(self, fact: Fact | None, target: str, value: Any) -> None:
        """Puts a fact's value into the spec and says so."""
        if fact is not None:
            self.set(target, value, fact)
            self.mark(fact, Verdict.MAPPED, f"{target} = {in_report(value)}")

    def say(self, verdict: Verdict, key: str, text: str) -> None:
        """A line of the report that belongs to no single fact."""
        self.further.append(Entry(verdict, text, key=key))

    def refuse(self, fact: Fact, why: str) -> None:
        """A value that can't be imported."""
        text = f"{fact.path} is {as_in_file(fact.value)}: {why}"
        self.problems.append(Problem(fact.place, text))
        self.mark(fact, Verdict.REFUSED, why)

    def _entry(self, fact: Fact, verdict: Verdict, text: str, row: Row | None) -> Entry:
        kind, path = ("", "") if row is None else (row.kind, row.path)
        return Entry(verdict, text, fact.place, fact.path, fact.value, kind=kind, path=path)

    def go_through(self, why_not: dict[str, str]) -> None:
        """Every fact by its row: values with a place of their own go into the spec, the rest is said.

        Args:
            why_not: Why a key is dead whose condition does not hold.
        """
        for number, fact in enumerate(self.facts):
            row = self._rows.get(number)
            if row is None:
                self._unknown(fact)
                continue
            if number in self.entries:
                continue
            unmet = next((name for name in row.when.split() if not self.conditions[name]), None)
            target = row.infer if self.generation and row.kind == FLAG else row.target
            if unmet is not None:
                self.mark(fact, Verdict.DEAD, why_not[unmet])
            elif row.verdict is Verdict.REFUSED:
                self.refuse(fact, row.reason)
            elif row.verdict is Verdict.MAPPED and not target:
                self.mark(fact, Verdict.DEAD, "inference takes it only to satisfy Megatron")
            elif row.verdict is Verdict.MAPPED:
                self._mapped(fact, row, target)
            elif row.only and not any(_equal(typed(fact), value) for value in row.only):
                allowed = " or ".join(map(as_in_file, row.only))
                self.refuse(fact, f"{row.reason}; only {allowed} can be imported")
            else:
                self.mark(fact, row.verdict, row.reason)
        self._defaults()

    def _mapped(self, fact: Fact, row: Row, target: str) -> None:
        """Keys that are read together with others have no conversion, and get their line from those."""
        if row.read is None:
            self.mark(fact, Verdict.MAPPED, target)
            return
        before = len(self.problems)
        value = self.read(fact, row.read)
        if len(self.problems) > before:
            return
        if "," in target or target.startswith("--"):
            self.mark(fact, Verdict.MAPPED, target)
        else:
            self.map(fact, target, value)

    def _defaults(self) -> None:
        for row in self.table.rows:
            if row.default is ABSENT or row.read is None or (row.kind, row.path) in self._numbers:
                continue
            target = row.infer if self.generation and row.kind == FLAG else row.target
            if not target or "," in target or target in self.changes or not self._grouped(row):
                continue
            if all(self.conditions[name] for name in row.when.split()):
                value = self.get(row.kind, row.path)
                self.set(target, value)
                self.say(Verdict.DEFAULT, row.path, f"{target} = {in_report(value)}")

    def _unknown(self, fact: Fact) -> None:
        if fact.source.kind == "shell variable":
            flags = self.reached.get(fact.path)
            text = (
                f"its value reaches {', '.join(flags)}"
                if flags
                else "a variable of the script; flags that it reaches have rows"
            )
            self.mark(fact, Verdict.DERIVED, text)
        else:
            self.mark(fact, Verdict.UNKNOWN, self.unknown(fact))

    def unknown(self, fact: Fact) -> str:
        """Why a key without a row is unknown, with the nearest one."""
        near = self.table.nearest_key(fact.source.kind, generic(fact.path))
        return (
            f"nothing reads it; did you mean {near}?"
            if near
            else f"no {fact.source.kind} of Wan's that is known"
        )


def typed(fact: Fact) -> Any:
    """A fact's value; a text of a script as the number that it writes."""
    if fact.source.kind in TEXT_KINDS and isinstance(fact.value, str):
        return number_of(fact.value)
    return fact.value


def _equal(value: Any, allowed: Leaf) -> bool:
    return type(value) is type(allowed) and value == allowed

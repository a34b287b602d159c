"""A dump as TeleFuser's configuration objects: every key known to the table, every value of its type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.nodes import Leaf, Mapping, Node, Sequence, leaves, node_in_file, plain
from mm_config.importing.telefuser.rows import Row
from mm_config.importing.telefuser.runtime_rows import DTYPES
from mm_config.importing.telefuser.table import rows_of
from mm_config.importing.verdict import Verdict
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import is_tuple
from mm_config.stored.parsing import shown_key

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@attrs.frozen
class Value:
    """One value of the dump, or a class's default where the dump lacks the key."""

    value: Any
    """What it is."""
    key: str
    """Path within the dump."""
    line: int
    """From 1."""
    given: bool = True
    """Whether the dump has it."""


@attrs.frozen
class Config:
    """One object of the dump."""

    owner: str
    """Its class, as the table calls it."""
    key: str
    """Path within the dump."""
    line: int
    """From 1."""
    fields: dict[str, Any]
    """What the dump gives: a `Value`, a `Config`, or a tuple of them."""

    def at(self, name: str) -> Value:
        """A field's value, its class's default where it is missing."""
        default = rows_of(self.owner)[name].default
        return self.fields.get(name) or Value(default, joined(self.key, name), self.line, given=False)

    def inside(self, name: str) -> Config:
        """The object under a field; one of defaults where it is missing or null."""
        found = self.fields.get(name)
        owner = rows_of(self.owner)[name].holds
        return found if isinstance(found, Config) else Config(owner, joined(self.key, name), self.line, {})

    def has(self, name: str) -> bool:
        """Whether there is an object under a field."""
        return isinstance(self.fields.get(name), Config)

    def many(self, name: str) -> tuple[Config, ...]:
        """The objects in a list."""
        found: tuple[Config, ...] | Value = self.fields.get(name, ())
        return () if isinstance(found, Value) else found


@attrs.frozen
class Fact:
    """One leaf of the dump and what the table says of it."""

    key: str
    """Path within the dump."""
    line: int
    """From 1."""
    value: Leaf
    """What the dump gives."""
    row: Row | None
    """None for a key that the table does not have."""


@attrs.define
class Findings:
    """What is found while a dump is read."""

    file: Path
    """The dump."""
    problems: list[Problem] = attrs.field(factory=list[Problem])
    """What is wrong with it."""
    facts: list[Fact] = attrs.field(factory=list[Fact])
    """Each leaf, in its order."""
    remarks: dict[str, tuple[Verdict, str]] = attrs.field(factory=dict[str, tuple[Verdict, str]])
    """What is to be told of a key beyond its row."""
    warnings: list[str] = attrs.field(factory=list[str])
    """What a reader of the report should know beyond single keys."""
    allow_unknown: bool = False
    """Whether keys that no table has are noted and not refused."""

    def refuse(self, value: Value | Config, message: str) -> None:
        """Notes why a value can't be taken over."""
        self.problems.append(Problem(f"{self.file}:{value.line}", f"{value.key}: {message}"))

    def remark(self, value: Value, verdict: Verdict, text: str) -> None:
        """Notes what became of a value."""
        self.remarks[value.key] = (verdict, text)

    def disagree(self, value: Value, text: str) -> None:
        """Notes that a value contradicts another, also where it is a default that the dump leaves out."""
        if value.given:
            self.remark(value, Verdict.CONFLICT, text)
        else:
            self.warnings.append(f"{value.key}: {text}")

    def check(self) -> None:
        """Raises UserError with all problems, if there are any."""
        if self.problems:
            raise UserError(dict.fromkeys(self.problems))


def joined(key: str, name: str) -> str:
    """A key inside of another."""
    return f"{key}.{shown_key(name)}" if key else shown_key(name)


def read_config(node: Node, owner: str, key: str, found: Findings, **classes: str) -> Config:
    """An object of the dump.

    Args:
        node: Where it stands.
        owner: Its class, as the table calls it.
        key: Its key from the root on.
        found: Takes the facts, and what is wrong.
        classes: Classes of fields, where they are not the table's.
    """
    if not isinstance(node.value, Mapping):
        found.refuse(
            Config(owner, key or "the dump", node.line, {}), f"expected an object, got {node_in_file(node)}"
        )
        return Config(owner, key, node.line, {})
    rows, fields = rows_of(owner), dict[str, Any]()
    for name, below in node.value.entries:
        where, row = joined(key, name), rows.get(name)
        if row is None:
            _unknown(below, where, name, owner, found)
            continue
        fields[name] = _field(below, row, classes.get(name, row.holds), where, found)
    return Config(owner, key, node.line, fields)


def _unknown(node: Node, key: str, name: str, owner: str, found: Findings) -> None:
    found.facts += [Fact(path, line, value, None) for path, value, line in leaves(node, key)]
    if not found.allow_unknown:
        rows = rows_of(owner)
        title = owner if owner[0].islower() else f"TeleFuser's {owner}"
        near = did_you_mean(name, rows) or f"; known there: {', '.join(rows)}"
        found.refuse(Value(None, key, node.line), f"{title} has no such field{near}")


def _field(node: Node, row: Row, holds: Any, key: str, found: Findings) -> Any:
    is_class = isinstance(holds, str)
    if node.value is None and (row.optional or (row.default is None and not is_class and not row.many)):
        found.facts.append(Fact(key, node.line, None, row))
        return Value(None, key, node.line)
    if row.many:
        if not isinstance(node.value, Sequence):
            found.refuse(Value(None, key, node.line), f"expected a list, got {node_in_file(node)}")
            return ()
        items = node.value.items
        if is_class:
            if not items:
                found.facts.append(Fact(key, node.line, (), row))
            return tuple(
                read_config(item, holds, f"{key}[{index}]", found) for index, item in enumerate(items)
            )
        values = tuple(_scalar(item, row, holds, f"{key}[{i}]", found) for i, item in enumerate(items))
        found.facts.append(Fact(key, node.line, values, row))
        return Value(values, key, node.line)
    if is_class:
        return read_config(node, holds, key, found)
    value = _scalar(node, row, holds, key, found)
    found.facts.append(Fact(key, node.line, value, row))
    return Value(value, key, node.line)


def _scalar(node: Node, row: Row, holds: Any, key: str, found: Findings) -> Any:
    value = node.value
    if holds is None:
        return str(plain(node)) if isinstance(value, (Mapping, Sequence)) else value
    if is_tuple(holds):
        if holds == DTYPES and isinstance(value, str):
            value = value.removeprefix("torch.")
        if value not in holds or not isinstance(value, str):
            near = did_you_mean(value, holds)
            expected = f"expected one of {', '.join(holds)}"
            found.refuse(Value(None, key, node.line), f"{expected}, got {node_in_file(node)}{near}")
            return row.default
        return value
    if holds is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if type(value) is not holds:
        found.refuse(Value(None, key, node.line), f"expected {_NAMES[holds]}, got {node_in_file(node)}")
        return row.default
    return value

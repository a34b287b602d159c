"""Conditions on fields as SQL, for SQLite and PostgreSQL. Imports SQLAlchemy, which takes its time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sql
from sqlalchemy import ColumnElement, Connection, FromClause, Table, func

from mm_config.runs.conditions import Aliases, Condition, mismatch, unknown_field
from mm_config.runs.field_texts import KINDS, sorting, storable, text_of, value_of
from mm_config.schema.errors import Problem
from mm_config.schema.types import is_list

_NEWEST = 500


@attrs.frozen
class FieldQueries:
    """What is asked of the JSON column `fields`, which holds the texts of a run's fields by path."""

    runs: Table
    """The table that has the column."""
    postgresql: bool
    """Else SQLite."""

    def met(self, condition: Condition, aliases: Aliases) -> ColumnElement[bool]:
        """Whether a run meets a condition; an alias means another path for each kind of spec."""
        kind = self.runs.c.kind
        named = {tag: names[condition.path] for tag, names in aliases.items() if condition.path in names}
        found = [sql.and_(kind == tag, self._met(condition, path)) for tag, path in named.items()]
        return sql.or_(*found, sql.and_(kind.not_in(list(named)), self._met(condition, condition.path)))

    def problems(
        self, where: Sequence[Condition], aliases: Aliases, connection: Connection
    ) -> Iterator[Problem]:
        """What is wrong with conditions that no stored run can meet: a wrong name or kind of value."""
        for condition in where:
            if held := self.examples(condition, aliases, connection):
                problem = mismatch(condition, held)
            elif known := self.known_paths(connection):
                problem = unknown_field(condition, known, aliases)
            else:
                continue
            if problem:
                yield problem

    def examples(self, condition: Condition, aliases: Aliases, connection: Connection) -> dict[str, Any]:
        """A value of each kind that a condition's field has in stored runs; of lists, also of their items."""
        found: dict[str, Any] = {}
        for path in condition.paths(aliases):
            texts: list[tuple[FromClause, ColumnElement[str]]] = [(self.runs, self.text(path))]
            if condition.operator == "~":
                for items, text in map(self._items, _places(path)):
                    texts.append((self.runs.join(items, sql.true()), text))
            for table, text in texts:
                first = func.substr(text, 1, 1)
                query = sql.select(first, func.min(text)).select_from(table).where(text.is_not(None))
                for kind, example in connection.execute(query.group_by(first)):
                    found.setdefault(KINDS[kind], value_of(json.loads(example) if kind == "[" else example))
        return found

    def known_paths(self, connection: Connection) -> list[str]:
        """The paths that the newest runs have: enough of them to say which one was meant."""
        columns = self.runs.c
        newest = sql.select(columns.fields).order_by(columns.started_at.desc()).limit(_NEWEST)
        return sorted({path for fields in connection.scalars(newest) for path in fields})

    def _met(self, condition: Condition, path: str) -> ColumnElement[bool]:
        operator, wanted = condition.operator, condition.value
        if operator == "~":
            # Both give the place of the part, 0 where there is none, and tell case apart, as LIKE does not.
            position = func.strpos if self.postgresql else func.instr
            return sql.or_(
                *(
                    sql.exists()
                    .select_from(items)
                    .where(text.between("'", "("), position(func.substr(text, 2), storable(wanted)) > 0)
                    for items, text in map(self._items, _places(path))
                )
            )
        if operator in ("=", "!="):
            equal = self._equal(path, (), wanted)
            differs = sql.not_(func.coalesce(equal, sql.false()))
            return equal if operator == "=" else sql.and_(self.text(path).is_not(None), differs)
        start, end = sorting(wanted), f"{sorting(wanted)}~"
        ranges = {"<": ("#-", start), "<=": ("#-", end), ">": (end, "#2"), ">=": (start, "#2")}
        return self.text(path).between(*ranges[operator])

    def _equal(self, path: str, inside: tuple[int, ...], wanted: Any) -> ColumnElement[bool]:
        """Whether a value equals the wanted one: numbers by value, lists item by item, all else as it is."""
        text = self.text(path, inside)
        if is_list(wanted):
            items = [self._equal(path, (*inside, number), item) for number, item in enumerate(wanted)]
            beyond = self.text(path, (*inside, len(wanted)))
            return sql.and_(text.between("[", "\\"), *items, beyond.is_(None))
        if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
            return text.between(sorting(wanted), f"{sorting(wanted)}~")
        return text == text_of(wanted)

    def text(self, path: str, inside: tuple[int, ...] = ()) -> ColumnElement[str]:
        """The text of a field's value, or of an item inside it; NULL where there is none."""
        values = [self.runs.c.fields[(*place, *inside)].as_string() for place in _places(path)]
        return self._by_bytes(func.coalesce(*values, None))

    def _items(self, place: tuple[str | int, ...]) -> tuple[FromClause, ColumnElement[str]]:
        """A row for each item of a list, or for the one value, and the text in it."""
        value = self.runs.c.fields[place]
        if not self.postgresql:
            items = func.json_each(value).table_valued("value")
            return items, items.c.value
        every = func.jsonb_path_query(value, sql.literal_column("'$[*]'"))
        items = every.table_valued("value").render_derived()
        return items, self._by_bytes(items.c.value.op("#>>")(sql.literal_column("'{}'")))

    def _by_bytes(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """A text in the order of its bytes, which SQLite has without being asked."""
        return sql.type_coerce(sql.collate(text, "C"), sql.Text()) if self.postgresql else text


def _places(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Where the value at a path may stand: under its name or, as `betas.0`, in a list."""
    holder, _, number = path.rpartition(".")
    return ((path,), (holder, int(number))) if holder and number.isdecimal() else ((path,),)

"""Pages of runs: the database filters, sorts, counts and cuts; only what is shown is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.runs.asking import ORDERS, Asked, Listed
from mm_config.runs.conditions import Condition
from mm_config.runs.field_texts import value_of
from mm_config.runs.index import Index
from mm_config.runs.listing import as_it_is
from mm_config.runs.record import RunRecord, RunStatus
from mm_config.runs.tables import RECORD, decoded, key_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_SHOWN = "shown_"


@attrs.frozen
class RunsPage:
    """A page of runs."""

    runs: tuple[Listed, ...]
    """In their order."""
    total: int
    """How many meet the conditions."""


def page_of(index: Index, asked: Asked) -> RunsPage:
    """A page of the runs that meet every condition.

    Raises:
        UserError: As `Index.list`; or no stored run has a field that is shown or sorted by.
    """
    from sqlalchemy import func, select

    met = index.met(asked)
    if met is None:
        return RunsPage((), 0)
    if asked.status is not None:
        met.append(_is(index, asked.status))
    columns, order = index.runs.c, _order(index, asked)
    shown = [index.queries.text(path).label(f"{_SHOWN}{place}") for place, path in enumerate(asked.fields)]
    total = func.count().over().label("total")
    query = select(*(columns[name] for name in RECORD), *shown, total).where(*met)
    sorting = order.desc() if asked.descending else order.asc()
    query = query.order_by(sorting.nulls_last(), columns.started_at.desc(), columns.path.desc())

    def read(row: Mapping[str, Any]) -> tuple[Listed, int]:
        texts = {path: row[f"{_SHOWN}{place}"] for place, path in enumerate(asked.fields)}
        values = {path: _value(text) for path, text in texts.items() if text is not None}
        return Listed(as_it_is(decoded(row), index.runs_dir), values), row["total"]

    found = index.found(query.offset(asked.first).limit(asked.most), read)
    if not found and asked.first:
        counted = page_of(index, attrs.evolve(asked, first=0, most=1))
        return RunsPage((), counted.total)
    _check(index, asked, [run for run, _ in found])
    return RunsPage(tuple(run for run, _ in found), found[0][1] if found else 0)


def _value(text: str) -> Any:
    """The value of a field from its text, where a list is JSON."""
    return value_of(json.loads(text) if text[0] == "[" else text)


def _check(index: Index, asked: Asked, runs: list[Listed]) -> None:
    """Refuses fields that no stored run has, as far as what was found does not tell that one has them."""
    named = {path for path in (asked.order, *asked.fields) if path not in ORDERS}
    strange = [path for path in sorted(named) if not any(path in run.fields for run in runs)]
    doubted = [one for one in asked.where if not runs or one.operator == "!="]
    index.check([*doubted, *(Condition(path, "=", None) for path in strange)], asked.aliases)


def _order(index: Index, asked: Asked) -> ColumnElement[Any]:
    return index.runs.c[asked.order] if asked.order in ORDERS else index.queries.text(asked.order)


def _is(index: Index, status: RunStatus) -> ColumnElement[bool]:
    """Whether a run has come so far; of those that the index has as running, as they are."""
    columns = index.runs.c
    running = index.read(columns.status == RunStatus.RUNNING.value)
    now = {key_of(record): as_it_is(record, index.runs_dir).status for record in running}
    others = [key for key, is_now in now.items() if is_now is not RunStatus.RUNNING]
    found = (columns.status == status.value) & columns.key.not_in(others)
    return found | columns.key.in_([key for key, is_now in now.items() if is_now is status])


def runs_that_name(index: Index, texts: Iterable[str]) -> tuple[RunRecord, ...]:
    """The runs in whose specs one of some texts stands, such as a hash or a folder's name, newest first."""
    from sqlalchemy import Text, cast, func, or_

    inside = func.strpos if index.queries.postgresql else func.instr
    fields = cast(index.runs.c.fields, Text)
    return index.read(or_(*(inside(fields, text) > 0 for text in texts)))

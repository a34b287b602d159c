"""Tables that the page's script lets a reader sort and filter; without it they are plain tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from mm_config.pages.markup import Child, Html, number, tag


@attrs.frozen
class Column:
    """What stands in a column, and so how it is sorted and filtered."""

    name: str
    """Its heading."""
    kind: Literal["text", "number", "choice", "picture"] = "text"
    """Text is searched, numbers have a range, a choice is one of few texts, pictures are only shown."""


@attrs.frozen
class Cell:
    """A cell that is shown otherwise than it is sorted."""

    shown: Child
    """What a reader sees."""
    key: str | int | float
    """What it is sorted, filtered and searched by."""


def table(columns: Sequence[Column], rows: Iterable[Sequence[Child | Cell]], *, filters: bool = True) -> Html:
    """A table; a click on a heading sorts it, and with `filters` controls above it choose rows."""
    heads = [tag("th", column.name, scope="col", data_kind=column.kind) for column in columns]
    lines = [
        tag("tr", *(_cell(column, value) for column, value in zip(columns, row, strict=True))) for row in rows
    ]
    body = tag("tbody", *lines)
    inside = tag(
        "table", tag("thead", tag("tr", *heads)), body, class_="rows filtered" if filters else "rows"
    )
    return tag("div", inside, class_="table")


def _cell(column: Column, value: Child | Cell) -> Html:
    shown, key = (value.shown, value.key) if isinstance(value, Cell) else (value, None)
    if column.kind == "number" and key is None and isinstance(shown, int | float):
        shown, key = number(shown), shown
    return tag("td", shown, class_=column.kind, data_key=key)

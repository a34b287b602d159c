"""How messages name many things."""

from __future__ import annotations

from collections.abc import Iterable


def first_names(names: Iterable[str], count: int = 10) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more

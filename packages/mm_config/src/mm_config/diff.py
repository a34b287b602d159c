"""What differs between two specs: one change per field, with its path, role and unit."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from mm_config.schema import (
    EXECUTION,
    LOCATION,
    SECRET,
    SEMANTIC,
    Role,
    class_of,
    info_of,
    is_spec,
    narrowed,
    spec_fields,
    tag_of,
)
from mm_config.typing_checks import is_tuple

# By role and by whether the field lies in a spec that enters the identity by its spec_hash.
_HEADINGS = {
    (SEMANTIC, False): "semantic (in spec_hash and exact_hash)",
    (EXECUTION, False): "execution (in exact_hash only)",
    (EXECUTION, True): "execution of a training that weights come from (in no hash)",
    (LOCATION, False): "location (in no hash)",
    (SECRET, False): "secret (in no hash)",
}


@attrs.frozen
class Change:
    """One field that differs."""

    path: str
    """Canonical path: `spec.optim.lr`, `spec.samples.seeds.0`."""
    role: Role
    """The role in force: a field inside an execution field is never semantic."""
    old: Any
    """The value in the first spec; a whole spec where the class differs."""
    new: Any
    """The value in the second spec."""
    unit: str | None = None
    by_hash: bool = False
    """Whether it lies in a spec that enters the identity by its spec_hash: only semantic fields count."""


def diff(a: Any, b: Any) -> tuple[Change, ...]:
    """The fields in which `b` differs from `a`, in order of declaration.

    A nested spec of another class is one change. Tuples of equal length are compared item by item,
    others are one change. Specs that enter the identity by their hash are compared field by field.
    """
    return tuple(_changes(Change("spec", SEMANTIC, a, b)))


def format_changes(changes: Iterable[Change]) -> tuple[str, ...]:
    """Plain lines: the changes grouped by role, `path: old -> new unit`; none for no changes."""
    lines: list[str] = []
    listed = tuple(changes)
    for key, heading in _HEADINGS.items():
        group = [change for change in listed if _group(change) == key]
        if group:
            lines += [heading, *(f"  {_line(change)}" for change in group)]
    return tuple(lines)


def show_value(value: Any) -> str:
    """A field's value in one short line: text in quotes, a spec by its tag, long tuples cut."""
    if is_spec(value):
        return tag_of(value)
    if isinstance(value, enum.Enum):
        return str(value.value)
    if is_tuple(value):
        items = [show_value(item) for item in value]
        text = f"({', '.join(items)})"
        return text if len(text) <= 80 else f"({items[0]}, ... {len(items)} items)"
    return repr(value)


def _group(change: Change) -> tuple[Role, bool]:
    return change.role, change.by_hash and change.role is EXECUTION


def _line(change: Change) -> str:
    unit = f" {change.unit}" if change.unit else ""
    return f"{change.path}: {show_value(change.old)} -> {show_value(change.new)}{unit}"


def _changes(at: Change) -> Iterator[Change]:
    """The change itself, or those inside it where both values can be looked into."""
    old, new = at.old, at.new
    if is_spec(old) and class_of(old) is class_of(new):
        for attribute in spec_fields(class_of(old)):
            info = info_of(attribute)
            inside = Change(
                path=f"{at.path}.{attribute.name}",
                role=narrowed(at.role, info.role),
                old=getattr(old, attribute.name),
                new=getattr(new, attribute.name),
                unit=info.unit,
                by_hash=at.by_hash or info.by_hash,
            )
            yield from _changes(inside)
    elif is_tuple(old) and is_tuple(new) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(attrs.evolve(at, path=f"{at.path}.{index}", old=before, new=after))
    elif old != new:
        yield at

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

_HEADINGS = {
    SEMANTIC: "semantic (in spec_hash and exact_hash)",
    EXECUTION: "execution (in exact_hash only)",
    LOCATION: "location (in no hash)",
    SECRET: "secret (in no hash)",
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


def diff(a: Any, b: Any) -> tuple[Change, ...]:
    """The fields in which `b` differs from `a`, in order of declaration.

    A nested spec of another class is one change. Tuples of equal length are compared item by item,
    others are one change. Specs that enter the identity by their hash are compared field by field.
    """
    return tuple(_changes(a, b, "spec", SEMANTIC, None))


def format_changes(changes: Iterable[Change]) -> tuple[str, ...]:
    """Plain lines: the changes grouped by role, `path: old -> new unit`; none for no changes."""
    lines: list[str] = []
    listed = tuple(changes)
    for role, heading in _HEADINGS.items():
        group = [change for change in listed if change.role is role]
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


def _line(change: Change) -> str:
    unit = f" {change.unit}" if change.unit else ""
    return f"{change.path}: {show_value(change.old)} -> {show_value(change.new)}{unit}"


def _changes(a: Any, b: Any, path: str, role: Role, unit: str | None) -> Iterator[Change]:
    if is_spec(a) and class_of(a) is class_of(b):
        for attribute in spec_fields(class_of(a)):
            info = info_of(attribute)
            values = getattr(a, attribute.name), getattr(b, attribute.name)
            yield from _changes(*values, f"{path}.{attribute.name}", narrowed(role, info.role), info.unit)
    elif is_tuple(a) and is_tuple(b) and len(a) == len(b):
        for index, (old, new) in enumerate(zip(a, b, strict=True)):
            yield from _changes(old, new, f"{path}.{index}", role, unit)
    elif a != b:
        yield Change(path, role, a, b, unit)

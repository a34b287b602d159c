"""What differs between two specs: one change per field, with its path, role and unit."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.schema.decorator import tag_of
from mm_config.schema.fields import SEMANTIC, Role, field_types, info_of, narrowed, spec_fields
from mm_config.schema.types import class_of, is_spec, is_spec_class, is_tuple


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
    """Of both values; None where they have none."""
    by_hash: bool = False
    """Whether it lies in a spec that enters the identity by its spec_hash: only semantic fields count."""


def diff(a: Any, b: Any) -> tuple[Change, ...]:
    """The fields in which `b` differs from `a`, in order of declaration.

    A nested spec of another class is one change. Tuples of equal length are compared item by item,
    others are one change. Specs that enter the identity by their hash are compared field by field.
    Of two roots of different classes, that is the first change (with path `spec`); then follow the
    changes of the fields that both have.
    """
    root = Change("spec", SEMANTIC, a, b)
    if is_spec(a) and is_spec(b) and class_of(a) is not class_of(b):
        return (root, *_shared_changes(root))
    return tuple(_changes(root))


def unshared(a: Any, b: Any) -> tuple[str, ...]:
    """The paths of the fields and specs that the first spec has and the second, of another class, has not."""
    return tuple(_unshared(a, b, "spec"))


def for_person(value: Any) -> str:
    """A field's value in one short line: text in quotes, a spec by its tag, long tuples cut."""
    if is_spec(value):
        return tag_of(value)
    if isinstance(value, enum.Enum):
        return str(value.value)
    if is_tuple(value):
        items = [for_person(item) for item in value]
        text = f"({', '.join(items)})"
        return text if len(text) <= 80 else f"({items[0]}, ... {len(items)} items)"
    return repr(value)


def _changes(at: Change) -> Iterator[Change]:
    """The change itself, or those inside it where both values can be looked into."""
    old, new = at.old, at.new
    if is_spec(old) and class_of(old) is class_of(new):
        for attribute in spec_fields(class_of(old)):
            yield from _changes(_inside(at, attribute))
    elif is_tuple(old) and is_tuple(new) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(attrs.evolve(at, path=f"{at.path}.{index}", old=before, new=after))
    elif old != new:
        yield at


def _inside(at: Change, attribute: attrs.Attribute[Any]) -> Change:
    """The values of one field of two specs."""
    info = info_of(attribute)
    return Change(
        path=f"{at.path}.{attribute.name}",
        role=narrowed(at.role, info.role),
        old=getattr(at.old, attribute.name),
        new=getattr(at.new, attribute.name),
        unit=info.unit,
        by_hash=at.by_hash or info.by_hash,
    )


def _shared_changes(at: Change) -> Iterator[Change]:
    """The changes of the fields that two specs of different classes have in common."""
    names = field_types(class_of(at.new))
    for attribute in spec_fields(class_of(at.old)):
        if attribute.name in names:
            field = _inside(at, attribute)
            yield from _shared_changes(field) if _differ_by_root(at, attribute.name) else _changes(field)


def _differ_by_root(at: Change, name: str) -> bool:
    """Whether a field's classes differ because the specs around it do: neither was chosen."""
    old, new = (field_types(class_of(value))[name] for value in (at.old, at.new))
    return old is not new and is_spec_class(old) and is_spec_class(new)


def _unshared(a: Any, b: Any, path: str) -> Iterator[str]:
    names = field_types(class_of(b))
    for name in field_types(class_of(a)):
        if name not in names:
            yield f"{path}.{name}"
        elif _differ_by_root(Change(path, SEMANTIC, a, b), name):
            yield from _unshared(getattr(a, name), getattr(b, name), f"{path}.{name}")

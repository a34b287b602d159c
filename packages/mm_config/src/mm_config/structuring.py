"""Plain data to specs, strictly: every problem of a payload at once, each with its canonical path."""

from __future__ import annotations

import difflib
import enum
import importlib
import pkgutil
import typing
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import attrs

from mm_config import specs
from mm_config.errors import Problem, prefixed
from mm_config.schema import (
    ABSENT,
    field_types,
    info_of,
    registered_specs,
    schema_of,
    spec_fields,
    tag_of,
    value_problems,
    wire_name,
)
from mm_config.typing_checks import is_dict, is_list, is_union, item_types, shown, type_problem

_FAILED = object()


def known_specs() -> dict[str, type[Any]]:
    """All spec classes by tag: this package's and those of entry points in the group `mm.specs`."""
    _import_specs()
    return registered_specs()


@cache
def _import_specs() -> None:
    for module in pkgutil.iter_modules(specs.__path__, f"{specs.__name__}."):
        importlib.import_module(module.name)
    for entry_point in entry_points(group="mm.specs"):
        entry_point.load()


def structure(data: Any, cls: type[Any], path: str) -> tuple[Any, list[Problem]]:
    """A spec of class `cls` from its fields in wire form.

    Args:
        data: The mapping of a spec's wire names to values, without the root's tag.
        cls: The spec class.
        path: Canonical path of the spec, the start of every problem's path.

    Returns:
        The spec and no problems, or None and all problems.
    """
    problems: list[Problem] = []
    made = _structure_fields(data, cls, path, problems)
    return (None if problems else made), problems


def class_of_tag(tag: object, allowed: Iterable[type[Any]], path: str) -> type[Any] | Problem:
    """The class with a tag among the allowed ones, or what is wrong with the tag."""
    classes = {tag_of(cls): cls for cls in allowed}
    if isinstance(tag, str) and tag in classes:
        return classes[tag]
    return Problem(path, f"unknown kind {shown(tag)}{_hint(tag, classes)} (allowed: {_listed(classes)})")


def _structure(data: Any, expected: Any, path: str, problems: list[Problem]) -> Any:
    """A value of type `expected` from its wire form, or _FAILED with problems appended."""
    before = len(problems)
    made = _converted(data, expected, path, problems)
    if len(problems) > before:
        return _FAILED
    if message := type_problem(made, expected):
        problems.append(Problem(path, message))
        return _FAILED
    return made


def _converted(data: Any, expected: Any, path: str, problems: list[Problem]) -> Any:
    alternatives = typing.get_args(expected) if is_union(expected) else (expected,)
    classes = [kind for kind in alternatives if isinstance(kind, type) and kind.__module__ != "builtins"]
    enums = [kind for kind in classes if issubclass(kind, enum.Enum)]
    tuples = [kind for kind in alternatives if typing.get_origin(kind) is tuple]
    if is_list(data) and tuples:
        return _tuple(data, tuples[0], path, problems)
    if is_dict(data) and len(classes) > len(enums):
        kinds = tuple(kind for kind in classes if kind not in enums)
        return _nested(data, kinds, path, problems)
    if isinstance(data, str) and enums and str not in alternatives:
        return _member(data, enums, path, problems)
    return data


def _tuple(items: list[Any], expected: Any, path: str, problems: list[Problem]) -> tuple[Any, ...]:
    types = item_types(expected, len(items))
    if types is None:
        return tuple(items)
    return tuple(
        _structure(item, kind, f"{path}.{index}", problems)
        for index, (item, kind) in enumerate(zip(items, types, strict=True))
    )


def _member(value: str, enums: list[type[enum.Enum]], path: str, problems: list[Problem]) -> Any:
    members = {str(member.value): member for kind in enums for member in kind}
    if value in members:
        return members[value]
    problems.append(
        Problem(path, f"expected one of {', '.join(members)}, got {shown(value)}{_hint(value, members)}")
    )
    return _FAILED


def _nested(data: dict[str, Any], kinds: tuple[type[Any], ...], path: str, problems: list[Problem]) -> Any:
    allowed = [cls for cls in known_specs().values() if issubclass(cls, kinds)]
    if "~" not in data:
        tags = _listed(map(tag_of, allowed))
        problems.append(Problem(path, f"the key '~' that names the kind is missing; allowed: {tags}"))
        return _FAILED
    cls = class_of_tag(data["~"], allowed, path)
    if isinstance(cls, Problem):
        problems.append(cls)
        return _FAILED
    return _structure_fields({key: data[key] for key in data if key != "~"}, cls, path, problems)


def _structure_fields(data: Any, cls: type[Any], path: str, problems: list[Problem]) -> Any:
    before = len(problems)
    fields = _migrated(data, cls, path, problems)
    if fields is None:
        return _FAILED
    attributes = {wire_name(attribute): attribute for attribute in spec_fields(cls)}
    meant = _unknown_keys(fields, list(attributes), path, problems)
    values: dict[str, Any] = {}
    for wire, attribute in attributes.items():
        name, expected = attribute.name, field_types(cls)[attribute.name]
        if wire in fields:
            values[name] = _structure(fields[wire], expected, f"{path}.{name}", problems)
            if values[name] is not _FAILED:
                problems.extend(prefixed(value_problems(values[name], expected, attribute), path))
        elif info_of(attribute).neutral is not ABSENT:
            values[name] = info_of(attribute).neutral
        elif wire not in meant:
            problems.append(Problem(f"{path}.{name}", f"missing{_default_hint(attribute)}"))
    return _FAILED if len(problems) > before else cls(**values)


def _migrated(data: Any, cls: type[Any], path: str, problems: list[Problem]) -> dict[str, Any] | None:
    """The fields in the class's present schema, or None with a problem appended."""
    if not is_dict(data):
        problems.append(Problem(path, f"expected a mapping, got {shown(data)}"))
        return None
    fields = dict(data)
    written, present = fields.pop("~schema", 1), schema_of(cls)
    if written == present and type(written) is int:
        return fields
    if type(written) is not int or written < 1:
        problems.append(Problem(path, f"~schema must be an integer from 1 on, got {shown(written)}"))
        return None
    if written > present:
        problems.append(Problem(path, f"~schema {written} is newer than {present}, the newest known here"))
        return None
    try:
        return cls.migrate(fields, written)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problems.append(Problem(path, f"can't be migrated from schema {written} to {present}: {error!r}"))
        return None


def _unknown_keys(
    fields: dict[str, Any], known: list[str], path: str, problems: list[Problem]
) -> set[str | None]:
    """Reports unknown keys; returns the missing fields that they were probably meant for."""
    missing = [wire for wire in known if wire not in fields]
    meant: set[str | None] = set()
    for key in fields:
        if key not in known:
            hint = _hint(key, missing) or _hint(key, known)
            problems.append(Problem(f"{path}.{key}", f"unknown key{hint or f' (allowed: {_listed(known)})'}"))
            meant.update(difflib.get_close_matches(key, missing, 1))
    return meant


def _default_hint(attribute: attrs.Attribute[Any]) -> str:
    default = attribute.default
    if default is None or isinstance(default, (bool, int, float, str)):
        return f"; a file holds every field, the default is {default!r}"
    return ""


def _hint(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f", did you mean {near[0]!r}?" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)

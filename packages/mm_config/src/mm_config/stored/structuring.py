"""Plain data to specs, strictly: every problem of a payload at once, each with its canonical path."""

from __future__ import annotations

import enum
import importlib
import pkgutil
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any, cast

import attrs

from mm_config import specs
from mm_config.schema.decorator import registered_specs, schema_of, tag_of
from mm_config.schema.errors import Problem, UserError, gathering, prefixed
from mm_config.schema.fields import ABSENT, field_types, info_of, spec_fields, wire_name
from mm_config.schema.ranges import range_problems
from mm_config.schema.root import RootSpec, aliases_of
from mm_config.schema.suggestions import did_you_mean, nearest
from mm_config.schema.types import in_error, is_dict, is_list, is_union, item_types, type_problem
from mm_config.stored.parsing import shown_key

_BUILTINS = (type(None), bool, int, float, str)


def known_specs() -> dict[str, type[Any]]:
    """All spec classes by tag: this package's and those of entry points in the group `mm.specs`.

    Raises:
        UserError: An entry point can't be loaded.
    """
    _import_specs()
    return registered_specs()


def all_aliases() -> dict[str, dict[str, str]]:
    """The short names of every root spec's fields, each with its path, by the spec's tag.

    Raises:
        UserError: As `known_specs`.
    """
    roots = {tag: cls for tag, cls in known_specs().items() if issubclass(cls, RootSpec)}
    return {tag: aliases_of(cls) for tag, cls in roots.items()}


@cache
def _import_specs() -> None:
    for module in pkgutil.iter_modules(specs.__path__, f"{specs.__name__}."):
        importlib.import_module(module.name)
    for entry_point in entry_points(group="mm.specs"):
        try:
            entry_point.load()
        except Exception as error:  # It is another package's code: whatever it raises becomes one line.
            what = f"the specs of {entry_point.value}, declared under mm.specs, can't be loaded"
            raise UserError(f"{what}: {type(error).__name__}: {error}") from error


def structure(data: Any, cls: type[Any], path: str) -> Any:
    """A spec of class `cls` from its fields in wire form.

    Args:
        data: The mapping of a spec's wire names to values, without its tag.
        cls: The spec class.
        path: Canonical path of the spec, the start of every problem's path.

    Raises:
        UserError: All that is wrong with the data.
    """
    fields = _in_present_schema(data, cls, path)
    attributes = {wire_name(attribute): attribute for attribute in spec_fields(cls)}
    problems, meant = _unknown_keys(fields, list(attributes), path)
    values: dict[str, Any] = {}
    for wire, attribute in attributes.items():
        name, expected = attribute.name, field_types(cls)[attribute.name]
        if wire in fields:
            with gathering(problems):
                values[name] = _structure(fields[wire], expected, f"{path}.{name}")
                problems += prefixed(range_problems(values[name], attribute), path)
        elif info_of(attribute).neutral is not ABSENT:
            values[name] = info_of(attribute).neutral
        elif wire not in meant:
            problems.append(Problem(f"{path}.{name}", f"missing{_missing_hint(attribute)}"))
    if not problems:
        return cls(**values)
    note, written = "", data.get("~schema", 1)
    if written != schema_of(cls):
        # The names are the present ones: who looks into the file may not find them there.
        note = f" (after {path} was migrated from schema {written} to {schema_of(cls)})"
    raise UserError(Problem(one.path, one.message + note) for one in problems)


def older_schemas(data: Any, tag: Any, path: str) -> Iterator[str]:
    """The canonical paths of the specs inside wire data that were written under an older schema.

    Args:
        data: The wire form of a field's value.
        tag: The tag of the spec that it stands for, where it does not carry it itself.
        path: Canonical path of the data.
    """
    if is_list(data):
        for index, item in enumerate(data):
            yield from older_schemas(item, None, f"{path}.{index}")
    elif is_dict(data):
        tag = data.get("~", tag)
        cls = known_specs().get(tag) if isinstance(tag, str) else None
        if cls is not None and data.get("~schema", 1) != schema_of(cls):
            yield path
        names = {wire_name(attribute): attribute.name for attribute in spec_fields(cls)} if cls else {}
        for key, value in data.items():
            yield from older_schemas(value, None, f"{path}.{names.get(key, key)}")


def class_of_tag(tag: object, allowed: Iterable[type[Any]], path: str) -> type[Any]:
    """The class with a tag among the allowed ones; a UserError where there is none."""
    classes = {tag_of(cls): cls for cls in allowed}
    if isinstance(tag, str) and tag in classes:
        return classes[tag]
    meant = did_you_mean(tag, classes)
    raise UserError(Problem(path, f"unknown kind {in_error(tag)}{meant} (allowed: {_quoted(classes)})"))


def _structure(data: Any, expected: Any, path: str) -> Any:
    """A value of type `expected` from its wire form; a UserError says what is wrong with it."""
    if type(data) is expected:
        return data
    made = _converted(data, expected, path)
    if message := type_problem(made, expected):
        raise UserError(Problem(path, message))
    return made


@attrs.frozen
class _Alternatives:
    """What an annotation allows besides plain values."""

    enums: tuple[type[enum.Enum], ...]
    """Enums."""
    kinds: tuple[type[Any], ...]
    """Spec classes and their abstract bases."""
    tuples: tuple[Any, ...]
    """Annotations of tuples."""
    text: bool
    """Whether text is allowed."""


@cache
def _alternatives(expected: Any) -> _Alternatives:
    found: tuple[Any, ...] = typing.get_args(expected) if is_union(expected) else (expected,)
    classes = [cast("type[Any]", one) for one in found if isinstance(one, type) and one not in _BUILTINS]
    return _Alternatives(
        enums=tuple(cls for cls in classes if issubclass(cls, enum.Enum)),
        kinds=tuple(cls for cls in classes if not issubclass(cls, enum.Enum)),
        tuples=tuple(one for one in found if typing.get_origin(one) is tuple),
        text=str in found,
    )


def _converted(data: Any, expected: Any, path: str) -> Any:
    allowed = _alternatives(expected)
    if is_list(data) and allowed.tuples:
        return _tuple(data, allowed.tuples[0], path)
    if is_dict(data) and allowed.kinds:
        return _nested(data, allowed.kinds, path)
    if isinstance(data, str) and allowed.enums and not allowed.text:
        return _member(data, allowed.enums, path)
    return data


def _tuple(items: list[Any], expected: Any, path: str) -> tuple[Any, ...]:
    types = item_types(expected, len(items))
    if types is None:
        return tuple(items)
    made, problems = list[Any](), list[Problem]()
    for index, (item, kind) in enumerate(zip(items, types, strict=True)):
        with gathering(problems):
            made.append(_structure(item, kind, f"{path}.{index}"))
    if problems:
        raise UserError(problems)
    return tuple(made)


def _member(value: str, enums: tuple[type[enum.Enum], ...], path: str) -> enum.Enum:
    members = {str(member.value): member for kind in enums for member in kind}
    if value in members:
        return members[value]
    expected = f"expected one of {', '.join(members)}"
    raise UserError(Problem(path, f"{expected}, got {in_error(value)}{did_you_mean(value, members)}"))


def _nested(data: dict[str, Any], kinds: tuple[type[Any], ...], path: str) -> Any:
    allowed = [cls for cls in known_specs().values() if issubclass(cls, kinds)]
    if "~" not in data:
        tags = _quoted(map(tag_of, allowed))
        raise UserError(Problem(path, f"the key '~' that names the kind is missing; allowed: {tags}"))
    cls = class_of_tag(data["~"], allowed, path)
    return structure({key: data[key] for key in data if key != "~"}, cls, path)


def _in_present_schema(data: Any, cls: type[Any], path: str) -> dict[str, Any]:
    """The fields in the class's present schema; raises UserError where they can't be had."""
    if not is_dict(data):
        raise UserError(Problem(path, f"expected a mapping, got {in_error(data)}"))
    fields = dict(data)
    written, present = fields.pop("~schema", 1), schema_of(cls)
    if type(written) is not int or written < 1:
        raise UserError(Problem(path, f"~schema must be an integer from 1 on, got {in_error(written)}"))
    if written > present:
        package = cls.__module__.partition(".")[0]
        message = (
            f"was written under {tag_of(cls)}'s schema {in_error(written).removeprefix('int ')}, which is "
            f"newer than {present}, the newest known here; upgrade {package}"
        )
        raise UserError(Problem(path, message))
    for schema in range(written, present):
        fields = _migrated(fields, cls, schema, path)
    return fields


def _migrated(fields: dict[str, Any], cls: type[Any], schema: int, path: str) -> dict[str, Any]:
    """The fields in the next schema."""
    step = f"can't be migrated from schema {schema} to {schema + 1}"
    try:
        migrated = cls.migrate(fields, schema)
    except UserError as error:
        found = prefixed(error.problems, path)
        raise UserError(Problem(one.path, f"{step}: {one.message}") for one in found) from error
    except KeyError as error:
        raise UserError(Problem(path, f"{step}: the key {shown_key(str(error))} is missing")) from error
    except Exception as error:  # What stands in an old payload is not known: whatever fails is its fault.
        why = f"{type(error).__name__}: {shown_key(str(error))}"
        raise UserError(Problem(path, f"{step}: {why}")) from error
    assert is_dict(migrated), f"{cls.__name__}.migrate returned {migrated!r}"
    return migrated


def _unknown_keys(fields: dict[str, Any], known: list[str], path: str) -> tuple[list[Problem], set[str]]:
    """A problem for each unknown key, and the missing fields that they were probably meant for."""
    missing = [wire for wire in known if wire not in fields]
    problems, meant = list[Problem](), set[str]()
    for key in fields:
        if key not in known:
            hint = did_you_mean(key, missing) or did_you_mean(key, known)
            where = f"{path}.{shown_key(key)}"
            problems.append(Problem(where, f"unknown key{hint or f' (allowed: {_quoted(known)})'}"))
            meant.update(nearest(key, missing)[:1])
    return problems, meant


def _missing_hint(attribute: attrs.Attribute[Any]) -> str:
    wire, default = wire_name(attribute), attribute.default
    key = "" if wire == attribute.name else f"; its key in a file is {wire!r}"
    if default is None or isinstance(default, (bool, int, float, str)):
        return f"{key}; a file holds every field, the default is {default!r}"
    return key


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)

"""Reading and changing a spec by canonical path: `get`, `replace`, `leaves`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import attrs

from mm_config.schema.docstrings import help_texts
from mm_config.schema.errors import Problem, SpecError, prefixed
from mm_config.schema.fields import FieldInfo, Role, field_types, info_of, narrowed, spec_fields
from mm_config.schema.ranges import value_problems
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import class_of, expect, expect_spec, is_dict, is_spec, is_tuple

T = TypeVar("T")

ROOT = "spec"
"""The first segment of every canonical path; arguments may leave it out."""


@attrs.frozen
class Leaf:
    """One value that can be set alone: a field that holds no spec."""

    path: str
    """Canonical path without the leading `spec.`: `optim.lr`."""
    value: Any
    """What it is now."""
    type: Any
    """The field's resolved annotation."""
    info: FieldInfo
    """What its field declares."""
    role: Role
    """The role in force: a field inside an execution field is never semantic."""
    owner: type[Any]
    """The spec class that declares the field."""
    help: str
    """The field's docstring on one line."""


def leaves(spec: Any, *, by_hash: bool = True) -> Iterator[Leaf]:
    """All leaves of a spec in order of declaration; a tuple of plain values is one leaf.

    Args:
        spec: Any spec.
        by_hash: Whether to go into specs that enter the identity by their hash alone.
    """
    yield from _leaves(spec, "", Role.SEMANTIC, by_hash)


def _leaves(spec: Any, prefix: str, outer: Role, by_hash: bool) -> Iterator[Leaf]:
    types, texts = field_types(class_of(spec)), help_texts(class_of(spec))
    for attribute in spec_fields(class_of(spec)):
        name, info, value = attribute.name, info_of(attribute), getattr(spec, attribute.name)
        path, role = prefix + name, narrowed(outer, info.role)
        if is_spec(value):
            if by_hash or not info.by_hash:
                yield from _leaves(value, f"{path}.", role, by_hash)
        elif _holds_specs(value):
            for index, item in enumerate(value):
                yield from _leaves(item, f"{path}.{index}.", role, by_hash)
        else:
            yield Leaf(path, value, types[name], info, role, class_of(spec), texts.get(name, ""))


def specs_inside(spec: Any, path: str = ROOT) -> Iterator[tuple[str, Any, attrs.Attribute[Any], type[Any]]]:
    """The specs inside a spec, outer before inner: path, value, the field that holds it and that one's class.

    Specs that enter the identity by their hash are not looked into.
    """
    for attribute in spec_fields(class_of(spec)):
        value, where = getattr(spec, attribute.name), f"{path}.{attribute.name}"
        several = ((f"{where}.{index}", item) for index, item in enumerate(value)) if is_tuple(value) else ()
        for at, item in ((where, value), *several):
            if is_spec(item):
                yield at, item, attribute, class_of(spec)
                if not info_of(attribute).by_hash:
                    yield from specs_inside(item, at)


def is_inside(path: str, others: Iterable[str]) -> bool:
    """Whether a path is one of others or leads into one of them."""
    return any(f"{path}.".startswith(f"{other}.") for other in others)


def _holds_specs(value: Any) -> bool:
    return is_tuple(value) and any(map(is_spec, value))


def get(spec: Any, path: str) -> Any:
    """The value at a path such as `optim.lr`, `spec.optim.lr` or `samples.seeds.0`.

    Raises:
        SpecError: There is no such field; the nearest one is named.
    """
    value, walked = spec, ROOT
    for name in _segments(path):
        if message := _step_problem(spec, value, walked, name):
            raise SpecError(Problem(f"{walked}.{name}", message))
        value = _child(value, name)
        walked = f"{walked}.{name}"
    return value


@overload
def replace(spec: T, path: str, value: Any, /) -> T: ...
@overload
def replace(spec: T, path: Mapping[str, Any], /) -> T: ...
def replace(spec: Any, path: str | Mapping[str, Any], value: Any = None, /) -> Any:
    """A copy of a spec with one value, or several at once, replaced.

    Each nested spec is constructed once, from the inside out, so changes that are valid only
    together can be made together.

    Args:
        spec: Any spec.
        path: A canonical path with or without the leading `spec.`, or a mapping of paths to values.
        value: The new value, where `path` is one path.

    Raises:
        TypeError: It is no spec, or a path is no text.
        SpecError: Unknown paths, two paths of which one contains the other, wrong types and values
            out of range: all of them, each with its canonical path.
    """
    changes = path if isinstance(path, Mapping) else {path: value}
    expect_spec("spec", spec)
    for one in changes:
        expect("path", one, str)
    problems: list[Problem] = []
    tree = _change_tree(changes, problems)
    changed = _rebuild(spec, spec, tree, ROOT, problems)
    if problems:
        raise SpecError(problems)
    return changed


@attrs.frozen
class _Set:
    """A leaf of the tree of changes."""

    value: Any
    """The new value."""


def unchecked(value: T, path: Sequence[str], choice: Any) -> T:
    """A copy of a spec with one value put in, which is known to be right: checks would take the time."""
    if not path:
        return choice
    name, *inside = path
    if is_tuple(value):
        return tuple(  # type: ignore[return-value]
            unchecked(item, inside, choice) if str(at) == name else item for at, item in enumerate(value)
        )
    changed = copy.copy(value)
    object.__setattr__(changed, name, unchecked(getattr(value, name), inside, choice))
    return changed


def _segments(path: str) -> list[str]:
    return path.removeprefix(f"{ROOT}.").split(".")


def _change_tree(changes: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, last = _segments(path)
        node: Any = tree
        for name in parents:
            node = node.setdefault(name, {}) if is_dict(node) else node
        if not is_dict(node) or last in node:
            full = ".".join([ROOT, *parents, last])
            problems.append(Problem(full, "is set twice: by itself and through a path that contains it"))
        else:
            node[last] = _Set(value)
    return tree


def _rebuild(root: Any, value: Any, tree: dict[str, Any], path: str, problems: list[Problem]) -> Any:
    """The value with the changes of `tree`; where there are problems, it is returned as it is."""
    before = len(problems)
    new: dict[str, Any] = {}
    for name, change in tree.items():
        where = f"{path}.{name}"
        if message := _step_problem(root, value, path, name):
            problems.append(Problem(where, message))
        elif isinstance(change, _Set):
            new[name] = change.value
        else:
            new[name] = _rebuild(root, _child(value, name), change, where, problems)
    if is_tuple(value):
        return tuple(new.get(str(index), item) for index, item in enumerate(value))
    if is_spec(value):
        types, attributes = field_types(class_of(value)), attrs.fields_dict(class_of(value))
        for name, item in new.items():
            problems.extend(prefixed(value_problems(item, types[name], attributes[name]), path))
    return value if len(problems) > before else attrs.evolve(value, **new)


def _child(value: Any, name: str) -> Any:
    return value[int(name)] if is_tuple(value) else getattr(value, name)


def _step_problem(root: Any, value: Any, path: str, name: str) -> str | None:
    """Why `name` can't be looked up in `value`, which stands at `path`; None where it can."""
    if is_spec(value):
        if name in field_types(class_of(value)):
            return None
        return f"{type(value).__name__} has no field {name!r}{_suggestion(root, value, path, name)}"
    if is_tuple(value):
        if name in map(str, range(len(value))):
            return None
        return f"{path} has {len(value)} items, {name!r} is none of 0 to {len(value) - 1}"
    return f"{path} is {value!r}, which has no fields; set it as a whole"


def _suggestion(root: Any, value: Any, path: str, name: str) -> str:
    fields = list(field_types(class_of(value)))
    by_name: dict[str, str] = {}
    for start, prefix in ((value, path), (root, ROOT)):
        for leaf in leaves(start, by_hash=False):
            by_name.setdefault(leaf.path.rsplit(".", 1)[-1], f"{prefix}.{leaf.path}")
    if name in by_name:
        return f"; did you mean {by_name[name]}?"
    own = did_you_mean(name, fields, lambda field: f"{path}.{field}")
    return own or did_you_mean(name, by_name, by_name.__getitem__) or f"; it has {', '.join(fields)}"

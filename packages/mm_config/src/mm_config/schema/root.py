"""The specs that can be run, hashed and stored on their own, and what their fields say of all inside them."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.schema.fields import (
    EXECUTION,
    SEMANTIC,
    Effect,
    FieldInfo,
    Layer,
    Role,
    field_types,
    info_of,
    spec_fields,
)
from mm_config.schema.types import class_of, is_kind, is_spec_class, is_tuple, is_union


class RootSpec:
    """A spec that can be run, hashed and stored on its own (TrainSpec, InferSpec)."""

    __slots__ = ()

    name: str


def aliases_of(cls: type[Any]) -> dict[str, str]:
    """The short names of a root spec's class, each with its path, both without the leading `spec.`.

    `--spec.lr` stands for `--spec.optim.lr`. Files, diffs and messages use canonical paths only.
    """
    return {alias: path for attribute in spec_fields(cls) for alias, path in _aliases(attribute)}


def _aliases(attribute: attrs.Attribute[Any]) -> Iterator[tuple[str, str]]:
    info = info_of(attribute)
    if info.short_name is not None:
        yield info.short_name, attribute.name
    for path in info.short_names:
        yield path.rpartition(".")[2], f"{attribute.name}.{path}"


def layer_of(cls: type[Any], attribute: attrs.Attribute[Any]) -> Layer | None:
    """Who fixes a field of a class; None where the class has no layers."""
    return info_of(attribute).layer or cls.__spec_layer__


def effect_of(spec: RootSpec, path: str, role: Role) -> Effect:
    """What a change of a field alters.

    Args:
        spec: A spec in which the path exists. A field inside a training that weights come from has the
            effect that it has in that training.
        path: Canonical path of the field, `spec.optim.lr`.
        role: The role in force there.
    """
    if role is not SEMANTIC:
        return Effect.EXECUTION if role is EXECUTION else Effect.LABEL
    if path == "spec":
        return Effect.RESULT
    (name, *inside), cls = _within_root(spec, path)
    info = info_of(attrs.fields_dict(cls)[name])
    prefixes = (".".join(inside[:count]) for count in range(len(inside), 0, -1))
    own = next((info.effects[prefix] for prefix in prefixes if prefix in info.effects), info.effect)
    return own or Effect.RESULT


def _within_root(value: Any, path: str) -> tuple[list[str], type[Any]]:
    """The path of a field inside the innermost root around it, and that root's class."""
    inside, cls = list[str](), class_of(value)
    for name in path.split(".")[1:]:
        if isinstance(value, RootSpec):
            inside, cls = [], class_of(value)
        inside.append(name)
        value = value[int(name)] if is_tuple(value) else getattr(value, name)
    return inside, cls


def declaration_problems(cls: type[Any]) -> Iterator[str]:
    """What is wrong with what the fields of a class say of effects, layers, groups and aliases.

    Inherited fields are their own class's business. Whether a path exists below a field that takes specs of
    several classes shows only in a spec.
    """
    if cls.__spec_layer__ is None and not any(_says(info_of(one)) for one in spec_fields(cls)):
        return
    inherited = {name for base in cls.__mro__[1:] if attrs.has(base) for name in attrs.fields_dict(base)}
    fields = [one for one in spec_fields(cls) if one.name not in inherited]
    semantic = [one for one in fields if info_of(one).role is SEMANTIC]
    layers = {one.name: layer_of(cls, one) for one in fields}
    effects = {one.name: info_of(one).effect for one in semantic}
    groups = {one.name: info_of(one).group for one in semantic}
    for what, said in (("layer", layers), ("effect", effects), ("group", groups)):
        if any(said.values()):
            yield from (f"{name}: says no {what}, other fields do" for name, one in said.items() if not one)
    taken = [one.name for one in spec_fields(cls)]
    for one in fields:
        info = info_of(one)
        if info.role is not SEMANTIC and (info.effect or info.effects or info.group):
            yield f"{one.name}: its role, {info.role.value}, says its effect and its group"
        for alias, _ in _aliases(one):
            if alias in taken:
                yield f"{one.name}: the alias {alias!r} is the name of another field or alias"
            taken.append(alias)
        for path in (*info.effects, *info.short_names):
            if not _can_hold(field_types(cls)[one.name], path.split(".")):
                yield f"{one.name}: no field {path!r} is inside"


def _says(info: FieldInfo) -> bool:
    said = info.effect, info.effects, info.layer, info.group, info.short_name, info.short_names
    return any(said)


def _can_hold(expected: Any, path: list[str]) -> bool:
    """Whether a value of an annotation may have a field at a path."""
    if is_union(expected):
        return any(_can_hold(kind, path) for kind in typing.get_args(expected))
    if not path or not is_spec_class(expected):
        return not path or is_kind(expected)
    types = field_types(expected)
    return path[0] in types and _can_hold(types[path[0]], path[1:])

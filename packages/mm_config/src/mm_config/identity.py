"""The two hashes of a spec: sha256 over RFC 8785 (JCS) bytes of its semantic (and execution) fields."""

from __future__ import annotations

import enum
import hashlib
import typing
from typing import Any, TypeAlias, cast

import attrs

from mm_config.schema import (
    ABSENT,
    EXECUTION,
    SEMANTIC,
    Role,
    class_of,
    field_types,
    info_of,
    is_spec,
    schema_of,
    spec_fields,
    tag_of,
    wire_name,
)
from mm_config.typing_checks import is_tuple, is_union, item_types

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMAT_VERSION = 1
"""The `v` of canonical bytes and of stored payloads."""

SPEC_ROLES = frozenset({SEMANTIC})
EXACT_ROLES = frozenset({SEMANTIC, EXECUTION})

# JSON numbers are doubles: from here on neighbours collide, so canonical bytes hold decimal strings.
_FIRST_INEXACT_INTEGER = 2**53


def spec_hash(spec: Any) -> str:
    """The 64 hex digits that name what a spec computes: its semantic fields."""
    return hashlib.sha256(canonical_bytes(spec, SPEC_ROLES)).hexdigest()


def exact_hash(spec: Any) -> str:
    """The 64 hex digits that name what a spec computes and how: semantic and execution fields."""
    return hashlib.sha256(canonical_bytes(spec, EXACT_ROLES)).hexdigest()


def canonical_bytes(spec: Any, roles: frozenset[Role] = SPEC_ROLES) -> bytes:
    """RFC 8785 bytes of `{"v": 1, "kind": <tag>, "spec": {...}}`: what a hash is taken of."""
    fields = _canonical_fields(spec, roles, "spec")
    return _encode({"v": FORMAT_VERSION, "kind": tag_of(spec), "spec": fields})


def canonical(value: Any, roles: frozenset[Role] = SPEC_ROLES, path: str = "spec") -> JSON:
    """The JSON value that stands for a field's value in canonical bytes.

    Args:
        value: A spec or anything that a spec's field can hold.
        roles: Fields of other roles are left out.
        path: Where the value stands, for error messages.

    Raises:
        TypeError: The value, or one inside it, is none that a spec can hold; the path is named.
    """
    if is_spec(value):
        return {"~": tag_of(value), **_canonical_fields(value, roles, path)}
    if isinstance(value, enum.Enum):
        return canonical(value.value, roles, path)
    if is_tuple(value):
        return [canonical(item, roles, f"{path}.{index}") for index, item in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _FIRST_INEXACT_INTEGER:
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: cannot take the hash of {type(value).__name__} {value!r}")


def declared(value: Any, expected: Any) -> Any:
    """The value with integers widened to floats where the annotation says float."""
    if type(value) is int:
        alternatives = typing.get_args(expected) if is_union(expected) else (expected,)
        return float(value) if float in alternatives and int not in alternatives else value
    if is_tuple(value) and typing.get_origin(expected) is tuple:
        return tuple(map(declared, value, item_types(expected, len(value)) or ()))
    return value


def _canonical_fields(spec: Any, roles: frozenset[Role], path: str) -> dict[str, JSON]:
    found: dict[str, JSON] = {} if schema_of(spec) == 1 else {"~schema": schema_of(spec)}
    types = field_types(class_of(spec))
    for attribute in spec_fields(class_of(spec)):
        info = info_of(attribute)
        if info.role not in roles:
            continue
        where = f"{path}.{attribute.name}"
        value = _canonical_field(getattr(spec, attribute.name), attribute, types, roles, where)
        if info.neutral is not ABSENT:
            neutral = _canonical_field(info.neutral, attribute, types, roles, where)
            if _encode(value) == _encode(neutral):
                continue
        found[wire_name(attribute)] = value
    return found


def _canonical_field(
    value: Any,
    attribute: attrs.Attribute[Any],
    types: dict[str, Any],
    roles: frozenset[Role],
    path: str,
) -> JSON:
    if info_of(attribute).by_hash and is_spec(value):
        return spec_hash(value)
    return canonical(declared(value, types[attribute.name]), roles, path)


def _encode(value: JSON) -> bytes:
    import rfc8785

    return rfc8785.dumps(cast(Any, value))

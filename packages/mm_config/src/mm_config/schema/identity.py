"""The two hashes of a spec: sha256 over RFC 8785 (JCS) bytes of its semantic (and execution) fields."""

from __future__ import annotations

import enum
import hashlib
import typing
from functools import cache
from typing import Any, TypeAlias, cast

import attrs

from mm_config.schema.decorator import schema_of, tag_of
from mm_config.schema.errors import UserError
from mm_config.schema.fields import (
    ABSENT,
    EXECUTION,
    SEMANTIC,
    Role,
    field_types,
    info_of,
    spec_fields,
    wire_name,
)
from mm_config.schema.types import (
    class_of,
    expect_spec,
    is_dict,
    is_list,
    is_spec,
    is_tuple,
    is_union,
    item_types,
)

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMAT_VERSION = 1
"""The `v` of canonical bytes and of stored payloads."""

SPEC_ROLES = frozenset({SEMANTIC})
EXACT_ROLES = frozenset({SEMANTIC, EXECUTION})

# JSON numbers are doubles: from here on neighbours collide, so canonical bytes hold decimal strings.
_FIRST_INEXACT_INTEGER = 2**53
_PLAIN = frozenset({bool, int, float, str})


def spec_hash(spec: Any) -> str:
    """The 64 hex digits that name what a spec computes: its semantic fields.

    Raises:
        TypeError: It is no spec.
    """
    expect_spec("spec", spec)
    return hashlib.sha256(canonical_bytes(spec, SPEC_ROLES)).hexdigest()


def exact_hash(spec: Any) -> str:
    """The 64 hex digits that name what a spec computes and how: semantic and execution fields.

    Raises:
        TypeError: It is no spec.
    """
    expect_spec("spec", spec)
    return hashlib.sha256(canonical_bytes(spec, EXACT_ROLES)).hexdigest()


def payload_hash(payload: JSON) -> str:
    """The 64 hex digits that name a stored payload as it was written: every field of every role.

    No spec class is asked, so the digits stay the same whatever becomes of the classes. The order of
    keys, the spelling of numbers (`1`, `1.0`) and the format (JSON, YAML) make no difference.

    Args:
        payload: Plain data, as `to_payload` gives it and JSON or YAML carry it.
    """
    return hashlib.sha256(encoded(_exact_integers(payload))).hexdigest()


def canonical_bytes(spec: Any, roles: frozenset[Role] = SPEC_ROLES) -> bytes:
    """RFC 8785 bytes of `{"v": 1, "kind": <tag>, "spec": {...}}`: what a hash is taken of."""
    fields = _canonical_fields(spec, roles, "spec")
    return encoded({"v": FORMAT_VERSION, "kind": tag_of(spec), "spec": fields})


def canonical(value: Any, roles: frozenset[Role] = SPEC_ROLES, path: str = "spec") -> JSON:
    """The JSON value that stands for a field's value in canonical bytes.

    Args:
        value: A spec or anything that a spec's field can hold.
        roles: Fields of other roles are left out.
        path: Where the value stands, for error messages.

    Raises:
        TypeError: The value, or one inside it, is none that a spec can hold; the path is named.
    """
    if value is None or isinstance(value, (bool, float)) or type(value) is str:
        return value
    if type(value) is int:
        return str(value) if abs(value) >= _FIRST_INEXACT_INTEGER else value
    if isinstance(value, enum.Enum):
        return canonical(value.value, roles, path)
    if is_spec(value):
        return {"~": tag_of(value), **_canonical_fields(value, roles, path)}
    if is_tuple(value):
        return [canonical(item, roles, f"{path}.{index}") for index, item in enumerate(value)]
    raise TypeError(f"{path}: cannot take the hash of {type(value).__name__} {value!r}")


def declared(value: Any, expected: Any) -> Any:
    """The value with integers widened to floats where the annotation says float."""
    if type(value) is int:
        alternatives = typing.get_args(expected) if is_union(expected) else (expected,)
        return float(value) if float in alternatives and int not in alternatives else value
    if is_tuple(value) and typing.get_origin(expected) is tuple:
        return tuple(map(declared, value, item_types(expected, len(value)) or ()))
    return value


def encoded(value: JSON) -> bytes:
    """The RFC 8785 bytes of a JSON value. Raises UserError where a number or a text has none."""
    import rfc8785

    try:
        return rfc8785.dumps(cast(Any, value))
    except rfc8785.CanonicalizationError as error:
        raise UserError(f"has no canonical form: {error}") from error


@attrs.frozen
class _Emitted:
    """What canonical bytes take of one field: everything that follows from its declaration."""

    name: str
    """In Python."""
    wire: str
    """In canonical bytes."""
    by_hash: bool
    """Whether the hash of the spec in it is written."""
    widened: Any
    """The annotation where integers have to become floats, else None."""
    neutral: Any
    """The value that is left out, or ABSENT."""
    neutral_bytes: bytes
    """Its canonical bytes: values are compared by them, because True == 1 in Python."""


@cache
def _emitted(cls: type[Any], roles: frozenset[Role]) -> tuple[_Emitted, ...]:
    """The fields of a class that have one of the roles."""
    found: list[_Emitted] = []
    for attribute in spec_fields(cls):
        info, expected = info_of(attribute), field_types(cls)[attribute.name]
        if info.role in roles:
            one = _Emitted(
                name=attribute.name,
                wire=wire_name(attribute),
                by_hash=info.by_hash,
                widened=expected if _holds_float(expected) else None,
                neutral=info.neutral,
                neutral_bytes=b"",
            )
            if info.neutral is not ABSENT:
                value = _canonical_field(info.neutral, one, roles, f"{cls.__name__}.{one.name}")
                one = attrs.evolve(one, neutral_bytes=encoded(value))
            found.append(one)
    return tuple(found)


def _holds_float(expected: Any) -> bool:
    return expected is float or any(map(_holds_float, typing.get_args(expected)))


def _canonical_fields(spec: Any, roles: frozenset[Role], path: str) -> dict[str, JSON]:
    found: dict[str, JSON] = {} if schema_of(spec) == 1 else {"~schema": schema_of(spec)}
    for one in _emitted(class_of(spec), roles):
        value, neutral = getattr(spec, one.name), one.neutral
        # Only what is not plainly equal has to be compared by its bytes, which takes longer.
        if value is neutral or (type(value) is type(neutral) and type(value) in _PLAIN and value == neutral):
            continue
        emitted = _canonical_field(value, one, roles, f"{path}.{one.name}")
        if neutral is ABSENT or encoded(emitted) != one.neutral_bytes:
            found[one.wire] = emitted
    return found


def _canonical_field(value: Any, one: _Emitted, roles: frozenset[Role], path: str) -> JSON:
    if one.by_hash and is_spec(value):
        return spec_hash(value)
    return canonical(value if one.widened is None else declared(value, one.widened), roles, path)


def _exact_integers(value: JSON) -> JSON:
    """Plain data whose integers all survive JSON."""
    if is_dict(value):
        return {key: _exact_integers(item) for key, item in value.items()}
    if is_list(value):
        return [_exact_integers(item) for item in value]
    return canonical(value)

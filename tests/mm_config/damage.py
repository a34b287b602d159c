"""Payloads damaged at random, and what reading one back must give."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from mm_config.schema.decorator import registered_specs
from mm_config.schema.fields import spec_fields
from mm_config.schema.types import is_spec
from mm_config.stored.files import to_payload
from tests.mm_config.strategies import experiments


class Raw(str):
    """Text that stands in a file as it is; no spec can hold what it says."""


class Twice(dict[str, Any]):
    """A mapping whose last key is written twice."""


DEEP = [Raw("[" * levels + "]" * levels) for levels in (65, 300, 10_000)]
DEEP += [Raw('{"x":' * levels + "1" + "}" * levels) for levels in (65, 300, 10_000)]
UNREADABLE = [Raw("1" * 5000), Raw("-" + "9" * 5000), Raw("1e999"), *DEEP]
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 17, 2**31, 2**53, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**64),
    10**400, 0.0, -0.0, 0.5, 1.0, 2.0, 1e-320, 1e16, 1e22, 1e300, float("nan"), float("inf"), float("-inf"),
    "", " ", "0", "1", "1.0", "1e-5", "true", "null", "nan", "no", "~", "adamw", "unipc", "trained-by",
    "x" * 30_000, "é", "变", "😀", "\x00", "\n", "\x85", "\u2028", "\ufeff", "\ud800", "a\udfffb",
    "\ude00\ud83d", [], [1], [None], [[]], [[1], [2]], [0] * 300, ["x"], [True], [1, 2, 3, 4], [0.5, 0.5],
    {}, {"~": "adamw"}, {"~": None}, {"~": ["adamw"]}, {"~": "adamw", "~schema": 2}, {"~schema": 1},
    {"x": 1}, {"": {}},
]  # fmt: skip
ODD_KEYS = [
    "", " ", "~", "~schema", "x", "lr", "seed", "name", "spec", "kind", "v", "__class__", "a.b", "a\nb", "变",
    "\ud800", "k" * 5000,
]  # fmt: skip


@cache
def corpus() -> tuple[list[str], list[str]]:
    """JSON of whole experiments, and of the specs inside them as roots of their own."""
    whole = [json.dumps(to_payload(spec)) for spec in experiments().values()]
    parts = {json.dumps(to_payload(part)) for spec in experiments().values() for part in specs_inside(spec)}
    return whole, sorted(parts)


def specs_inside(value: Any) -> Iterator[Any]:
    if is_spec(value):
        for attribute in spec_fields(type(value)):
            inside = getattr(value, attribute.name)
            if is_spec(inside):
                yield inside
            yield from specs_inside(inside)
    elif isinstance(value, tuple):
        for item in value:
            yield from specs_inside(item)


def containers(value: Any) -> list[Any]:
    """Every list and mapping inside a value that is not empty."""
    if not isinstance(value, (dict, list)) or not value:
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [value, *(container for item in inside for container in containers(item))]


def mutate(payload: Any, chance: random.Random) -> Any:
    """A payload with one damage; the payload itself may be changed."""
    found = containers(payload)
    if not found or chance.random() < 0.002:
        return chance.choice([*ODD_VALUES, *UNREADABLE])
    container = chance.choice(found)
    key = chance.choice(list(container) if isinstance(container, dict) else range(len(container)))
    chance.choice(DAMAGES)(payload, container, key, chance)
    return payload


def clone(value: Any) -> Any:
    if isinstance(value, dict):
        return type(value)({key: clone(item) for key, item in value.items()})
    return [clone(item) for item in value] if isinstance(value, list) else value


def delete(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    del container[key]


def rename(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container, dict):
        names = [*ODD_KEYS, f"{key}_", key[:-1], key.upper(), *container]
        container[chance.choice(names)] = container.pop(key)


def add(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    value = clone(chance.choice(ODD_VALUES))
    if isinstance(container, dict):
        container[chance.choice(ODD_KEYS)] = value
    else:
        container.insert(key, value)


def put(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    container[key] = clone(chance.choice(ODD_VALUES))


def put_unreadable(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    # Ten thousand levels take a while to read; most mutants are for other damages.
    container[key] = chance.choice(UNREADABLE) if chance.random() < 0.05 else Raw("1e999")


def put_other_type(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    value = container[key]
    others: list[Any] = [[value], {"value": value}, {"0": value}, json.dumps(value), None]
    if isinstance(value, (bool, int, float)) and abs(value) < 2**60:
        others += [bool(value), int(value), float(value), str(value), value + 1, -value, value * 1e30]
    elif isinstance(value, str):
        others += [value.upper(), f"{value} ", f" {value}", value[:-1], value * 2, value[::-1]]
    elif isinstance(value, list):
        others += [dict.fromkeys(map(str, range(len(value))), 0), value * 2, value[:-1], value[::-1]]
    elif isinstance(value, dict):
        others += [list(value.values()), list(value), list(map(list, value.items())), value.get("~")]
    container[key] = chance.choice(others)


def put_other_part(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    other = chance.choice(containers(payload))
    values = list(other.values()) if isinstance(other, dict) else other
    container[key] = clone(chance.choice([other, *values]))


def swap_tag(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    tagged = [
        found for found in containers(payload) if isinstance(found, dict) and {"~", "kind"} & found.keys()
    ]
    if tagged:
        one = chance.choice(tagged)
        one["~" if "~" in one else "kind"] = chance.choice(sorted(registered_specs()))


def set_schema(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container, dict):
        container["~schema"] = chance.choice([0, 1, 2, -1, 2**70, 1.0, "1", True, None, []])


def write_twice(payload: Any, container: Any, key: Any, chance: random.Random) -> None:
    if isinstance(container[key], dict) and container[key]:
        container[key] = Twice(container[key])


DAMAGES = [
    delete, rename, add, put, put, put_unreadable, put_other_type, put_other_type, put_other_part, swap_tag,
    set_schema, write_twice,
]  # fmt: skip


def as_json(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {as_json(item)}" for key, item in value.items()]
        return "{" + ", ".join([*items, *items[-1:]] if isinstance(value, Twice) else items) + "}"
    return f"[{', '.join(map(as_json, value))}]" if isinstance(value, list) else json.dumps(value)


def as_yaml(value: Any, indent: str = "") -> str:
    """Block style, in which keys and texts that could be anything else stand in quotes."""
    if isinstance(value, dict) and value:
        items = [f"{indent}{yaml_text(key)}:{yaml_item(item, indent)}" for key, item in value.items()]
        return "\n" + "\n".join([*items, *items[-1:]] if isinstance(value, Twice) else items)
    if isinstance(value, list) and value:
        return "\n" + "\n".join(f"{indent}-{yaml_item(item, indent)}" for item in value)
    if isinstance(value, str):
        return value if isinstance(value, Raw) else yaml_text(value)
    if isinstance(value, float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    return json.dumps(value)


def yaml_item(value: Any, indent: str) -> str:
    text = as_yaml(value, indent + "  ")
    return text if text.startswith("\n") else f" {text}"


def yaml_text(text: str) -> str:
    if re.fullmatch(r"[a-z_]+", text) and text not in ("true", "false", "null"):
        return text
    escaped = (
        rf"\U{ord(one):08x}" if not one.isascii() or one < " " or one in '"\\' else one for one in text
    )
    return f'"{"".join(escaped)}"'

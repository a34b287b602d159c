"""Conditions on the fields of stored runs: `optim.lr>1e-5`, `data.dataset=shapes`, `name~high`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.evolve import ROOT
from mm_config.schema.suggestions import nearest
from mm_config.stored.parsing import parse_yaml

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~")
_ORDERED = ("<", "<=", ">", ">=")
_MEANT = {"==": "=", "===": "=", "=<": "<=", "=>": ">=", "<>": "!=", "=~": "~", "~=": "~"}
_NULL = ("None", "null")
_PARTS = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*([=!<>~]+)(.*)", re.DOTALL)

Aliases = Mapping[str, Mapping[str, str]]
"""Short names of fields, as alias to path, by the wire tag of the run's spec."""


@attrs.frozen
class Condition:
    """What a field of a run's spec must be. A run without the field does not meet it."""

    path: str
    """Canonical path or alias, without the leading `spec.`."""
    operator: str
    """One of OPERATORS; `~` asks for a part of a text."""
    value: Any
    """None, bool, int, float, str, or a list for a field that holds several."""

    def paths(self, aliases: Aliases) -> tuple[str, ...]:
        """Every path that may be meant, of runs of any kind."""
        named = (names[self.path] for names in aliases.values() if self.path in names)
        return tuple(dict.fromkeys((self.path, *named)))


def parse_condition(text: str) -> Condition:
    """Reads a condition.

    The value is read as in a file: a number, true, false, null, a list or a text in quotes as JSON has
    them; None is null, as after a flag; all else is text, such as an enum's name.

    Raises:
        UserError: It is none; what is wrong is said.
    """
    matched = _PARTS.fullmatch(text)
    if matched is None:
        example = "a condition is FIELD, one of = != < <= > >= ~, and a value, such as optim.lr>1e-5"
        raise UserError(f"{text!r}: {example}")
    named, operator, raw = matched[1], matched[2], matched[3].strip()
    if operator not in OPERATORS:
        near = f", did you mean {_MEANT[operator]}?" if operator in _MEANT else ""
        quoted = "a value that begins with such a sign stands in quotes"
        raise UserError(f"{text!r}: {operator!r} is none of {' '.join(OPERATORS)}{near} ({quoted})")
    if not raw:
        raise UserError(f'{text!r}: a value is missing; null is none, "" is an empty text')
    value = _value(raw, text) if operator != "~" or raw[0] == '"' or raw in _NULL else raw
    if value is None and operator not in ("=", "!="):
        quoted = f'; the text is "{raw}", in quotes' if operator == "~" else ""
        raise UserError(f"{text!r}: only = and != ask for {raw}{quoted}")
    if operator in _ORDERED and _kind(value) != "number":
        raise UserError(f"{text!r}: {operator} compares numbers, {raw!r} is none")
    return Condition(named.removeprefix(f"{ROOT}.").replace("-", "_"), operator, value)


def moment(text: str) -> str:
    """A date or time in ISO 8601, UTC where it names no zone, as records have it.

    Raises:
        UserError: It is none.
    """
    try:
        given = datetime.fromisoformat(text)
        moved = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        message = f"{text!r} is no date or time in ISO 8601, such as 2026-11-22 or 2026-11-22T18:30"
        raise UserError(message) from None
    return moved.isoformat(timespec="microseconds")


def unknown_field(condition: Condition, known: Iterable[str], aliases: Aliases) -> Problem:
    """What to say of a field that no stored run has."""
    ends = {path: path.rpartition(".")[2] for path in known}
    names = {alias for table in aliases.values() for alias in table}
    last = condition.path.rpartition(".")[2]
    alike = nearest(last, set(ends.values()))
    near = sorted((path for path in ends if ends[path] == last), key=len)
    near = near or nearest(condition.path, [*ends, *names])
    near = near or sorted((path for path in ends if ends[path] in alike), key=len)
    # The same field of a training that weights come from is not what was meant.
    own = [path for path in near if not any(path.endswith(f".{other}") for other in near)]
    meant = " or ".join(f"{ROOT}.{path}" for path in own[:3])
    hint = f"; did you mean {meant}?" if near else "; `mm show RUN --format flat` lists the fields of a run"
    return Problem(f"{ROOT}.{condition.path}", f"no stored run has this field{hint}")


def mismatch(condition: Condition, examples: Mapping[str, Any]) -> Problem | None:
    """What is wrong with asking the condition of a field that has these kinds of value in all stored runs."""
    fitting = "number" if condition.operator in _ORDERED else _kind(condition.value)
    # A field that is null in all runs may hold anything in others.
    if fitting in examples or fitting == "null" or not examples.keys() - {"null"}:
        return None
    held = " or ".join(
        f"a {kind} such as {_short(value)}" for kind, value in examples.items() if kind != "null"
    )
    hint = ""
    if "text" in examples and fitting in ("number", "bool"):
        hint = f'; a text that looks like a {fitting} stands in quotes: "{_short(condition.value)}"'
    asked = f"a {fitting} ({condition.operator}{_short(condition.value)})"
    return Problem(f"{ROOT}.{condition.path}", f"holds {held}, it can't be compared with {asked}{hint}")


def _value(raw: str, text: str) -> Any:
    if raw in _NULL:
        return None
    if raw[0] in '"[':
        try:
            value: Any = json.loads(raw)
        except ValueError as error:
            raise UserError(f"{text!r}: {raw!r} is no JSON: {error}") from None
    else:
        # Words without spaces and punctuation: whatever YAML makes of them is a scalar.
        value = parse_yaml(raw) if re.fullmatch(r"[-+.]*\w[-+.\w]*", raw) else raw
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{text!r}: {raw!r} is no finite number")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "text" if isinstance(value, str) else "list"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."

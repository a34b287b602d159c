"""Values of fields as texts that every database orders as the values are ordered, exactly.

No database holds every value: SQLite's integers end at 2^63 and its reader of decimals may miss the nearest
float, PostgreSQL's texts have no NUL. So the index keeps a text that says what a value is, where it sorts (by
the power of ten, then by the digits) and what it was:

    None, True    null, true
    12.5          #15001125 12.5
    -12.5         #-4998874~-12.5    (digits subtracted from 9, since more of them is less)
    "wan"         'wan
    [1, "a"]      the list of its items' texts
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from mm_config.schema.types import is_list

KINDS = {"n": "null", "t": "bool", "f": "bool", "#": "number", "'": "text", "[": "list"}
"""The kind of a value by the first character of its text."""

_ZERO_EXPONENT = 5000
"""Keeps exponents of four digits positive: JSON's integers end at 4300 digits, floats begin at 1e-324."""
_SUBTRACTED_FROM_9 = str.maketrans("0123456789", "9876543210")
_UNSTORABLE = re.compile("[\0\ud800-\udfff\uffff]")
_PRIVATE = 0xF0000


def text_of(value: Any) -> Any:
    """The text of a scalar, or the list of the texts of a list's items."""
    if is_list(value):
        return [text_of(item) for item in value]
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return sorting(value) + json.dumps(value)
    # What is no text is an object, which only a payload that can't be loaded has for a value.
    return f"'{storable(value if isinstance(value, str) else json.dumps(value))}"


def value_of(text: Any) -> Any:
    """The inverse of `text_of`."""
    if is_list(text):
        return [value_of(item) for item in text]
    if text[0] == "'":
        return re.sub("\uffff(.)", lambda found: chr(ord(found[1]) - _PRIVATE), text[1:])
    return json.loads(re.split("[ ~]", text, maxsplit=1)[1] if text[0] == "#" else text)


def storable(text: str) -> str:
    """The text without what a database may not hold: U+FFFF and a private character stand for it."""
    return _UNSTORABLE.sub(lambda found: f"\uffff{chr(ord(found[0]) + _PRIVATE)}", text)


def sorting(number: float) -> str:
    """What the texts of all numbers equal to this one begin with, and of no others."""
    if isinstance(number, float) and not math.isfinite(number):
        return {"inf": "#19999 ", "-inf": "#-0000~"}.get(str(number), "#~")
    if number == 0:
        return "#0 "
    # A float with a fraction has as many digits as its shortest decimal needs: that is between the same
    # integers, and in the same order among floats.
    exact = Decimal(int(number) if number == int(number) else repr(number))
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    text = f"{exact.adjusted() + _ZERO_EXPONENT:04}{digits}"
    return f"#1{text} " if number > 0 else f"#-{text.translate(_SUBTRACTED_FROM_9)}~"

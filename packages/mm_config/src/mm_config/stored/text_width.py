"""How many columns of a terminal or an editor a text takes."""

from __future__ import annotations

import unicodedata

_WIDE = ("W", "F")
_COMBINING = ("Mn", "Me")


def width_of(text: str) -> int:
    """The width of a text without control characters: Chinese counts two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, limit: int) -> str:
    """The longest start of a text that takes at most `limit` columns."""
    if width_of(text) <= limit:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += _width(character)
        if taken > limit:
            return text[:index]
    return text


def _width(character: str) -> int:
    if unicodedata.category(character) in _COMBINING:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1

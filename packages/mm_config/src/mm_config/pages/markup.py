"""Markup that is built, never pasted: every text is escaped once, where it enters."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

_VOID = ("br", "img", "input", "link", "meta", "source")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no HTML file may hold: controls and half surrogate pairs, of file names that are no UTF-8 too."""


class Html(str):
    """Markup that was made here; any other string is text."""

    __slots__ = ()


Child = str | int | float | None
"""What stands in an element: markup, or a text or number that is escaped."""


def tag(name: str, /, *children: Child, **attributes: str | int | float | None) -> Html:
    """An element. Attributes of Python's words end in `_` (`class_`), and None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" + ("" if name in _VOID else f"{joined(children)}</{name}>"))


def joined(children: Iterable[Child]) -> Html:
    """Markup and texts, one after the other."""
    return Html("".join(one if isinstance(one, Html) else escaped_text(one) for one in children))


def escaped_text(value: Child) -> str:
    """A value as text of an element or an attribute; nothing for None."""
    return "" if value is None else html.escape(_UNPRINTABLE.sub("\ufffd", str(value)))


def data_block(value: Any) -> Html:
    """A JSON value that the page's own script reads, and that no browser runs."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(f'<script type="application/json">{text}</script>')


def number(value: float) -> str:
    """A number as a reader wants it: four digits, more only of a count."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"

"""A whole page in one file: styles and script stand in it, and a policy lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from mm_config.pages.markup import Child, Html, joined, tag

if TYPE_CHECKING:
    from mm_config.pages.serving import Asset

_CURVES = 'class="curves"'
"""Only markup has this; in a text the quotes are escaped."""


def page(title: str, *parts: Child, subtitle: str = "") -> str:
    """An HTML file. The browser is told to load nothing from anywhere and to run its two scripts alone."""
    body = joined((tag("header", tag("h1", title), tag("p", subtitle)), tag("main", *parts)))
    drawing = _CURVES in body
    styles = [_asset("page.css"), *([_asset("uplot/uPlot.min.css")] if drawing else [])]
    scripts = [*([_uplot()] if drawing else []), _asset("page.js")]
    policy = tag("meta", http_equiv="Content-Security-Policy", content=_policy(styles, scripts))
    head = (policy, *(tag("style", Html(style)) for style in styles))
    return _document(title, head, body, [tag("script", Html(script)) for script in scripts])


def served_page(
    title: str, *parts: Child, top: Html, styles: Sequence[Asset] = (), scripts: Sequence[Asset] = ()
) -> str:
    """A page of a server, whose `guarded` says what it may load and run.

    Args:
        title: In the browser's tab.
        parts: What stands on it.
        top: Its header, such as the heading and links to other pages.
        styles: Of the page kit, and its own.
        scripts: Of the page kit, and its own, in their order.
    """
    head = [tag("link", rel="stylesheet", href=style.url) for style in styles]
    run = [tag("script", src=script.url) for script in scripts]
    return _document(title, head, joined((tag("header", top), tag("main", *parts))), run)


def _document(title: str, head: Sequence[Html], body: Html, scripts: Sequence[Html]) -> str:
    known = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
    )
    inside = (tag("head", *known, *head), tag("body", body, *scripts))
    return f"<!doctype html>\n{tag('html', *inside, lang='en')}\n"


def _policy(styles: list[str], scripts: list[str]) -> str:
    """What the page may do: show pictures and videos that stand in it, and run what was written here."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {' '.join(map(_digest, styles))}",
            f"script-src {' '.join(map(_digest, scripts))}",
            "img-src data:",
            "media-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _uplot() -> str:
    """The library with the notice that its licence asks copies to carry."""
    return f"/*\nuPlot\n{_asset('uplot/LICENSE.txt')}*/\n{_asset('uplot/uPlot.iife.min.js')}"


@cache
def _asset(name: str) -> str:
    return (files("mm_config.pages") / name).read_text("utf-8")


def section(title: str, *parts: Child) -> Html:
    """A part of a page under its own heading."""
    return tag("section", tag("h2", title), *parts)


def side_by_side(*figures: Html) -> Html:
    """Charts in as many columns as the window has room for."""
    return tag("div", *figures, class_="charts")


def facts(*pairs: tuple[str, Child]) -> Html:
    """Names with their values, side by side."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))

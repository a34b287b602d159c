"""What is taken out of captions before they are encoded."""

from __future__ import annotations

import html
import re
from html.entities import html5
from html.parser import HTMLParser

import ftfy

from mm_config.specs import Cleaning

_HOST = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)"
_DASHES = r"\u002D\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40\u301C\u3030\u30A0"
_FILES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_CJK = re.compile(r"[\u31c0-\u9fff]+")
"""Strokes, phonetic extensions, enclosed letters, compatibility forms, hexagrams and all ideographs."""

_BEFORE_CJK = ((r"@\w+\b", ""),)
_AFTER_CJK = (
    (rf"[{_DASHES}\uFE31\uFE32\uFE58\uFE63\uFF0D]+", "-"),
    (r"[`´«»“”¨]", '"'),
    (r"[‘’]", "'"),
    (r"&quot;?", ""),
    (r"&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"[\S]+\.(?:{_FILES})", ""),
    (r"[\"\']{2,}", '"'),
    (r"[\.]{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~\)\(\]\[\}\{\|\\\/\*]{1,}", " "),
    (r"\s+\.\s+", " "),
)
_AFTER_MENDING = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILES})(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),
    (r"\b\s+\:\s+", ": "),
    (r"(\D[,\./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"\']([\w\W]+)[\"\']$", r"\1"),
    (r"^[\'\_,\-\:;]", ""),
    (r"[\'\_,\-\:\-\+]$", ""),
    (r"^\.\S+$", ""),
)


def cleaned(caption: str, cleaning: Cleaning) -> str:
    """A caption as a way of cleaning leaves it."""
    if cleaning is Cleaning.NONE:
        return caption
    if cleaning is Cleaning.WHITESPACE:
        return " ".join(caption.split())
    if cleaning is Cleaning.BASIC:
        return " ".join(_mended(caption).split())
    once = _without_web(caption, keep_cjk=cleaning is Cleaning.WEB)
    return _without_web(once, keep_cjk=cleaning is Cleaning.WEB)


def _mended(caption: str) -> str:
    """Broken encodings mended, quotes, ligatures and widths unified, and HTML escapes undone, twice."""
    return html.unescape(html.unescape(ftfy.fix_text(caption)))


def _without_web(caption: str, keep_cjk: bool) -> str:
    """One pass of DeepFloyd IF's `clean_caption`, which PixArt, Open-Sora-Plan and MindSpeed-MM took over."""
    caption = _unquoted(caption).strip().lower().replace("<person>", "person")
    caption = re.sub(rf"\b((?:https?:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_HOST}))", "", caption)
    caption = re.sub(rf"\b((?:www:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_HOST}))", "", caption)
    caption = _substituted(_text_of(caption), _BEFORE_CJK)
    if not keep_cjk:
        caption = _CJK.sub("", caption)
    caption = _substituted(caption, _AFTER_CJK)
    if len(re.findall(r"[-_]", caption)) > 3:
        caption = re.sub(r"[-_]", " ", caption)
    return _substituted(_mended(caption), _AFTER_MENDING).strip()


def _unquoted(text: str) -> str:
    """A text without the escapes of links, as `urllib.parse.unquote_plus` makes it."""

    def decoded(escapes: re.Match[str]) -> str:
        return bytes.fromhex(escapes[0].replace("%", "")).decode("utf-8", "replace")

    return re.sub(r"(?:%[0-9a-fA-F]{2})+", decoded, text.replace("+", " "))


def _substituted(caption: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, instead in rules:
        caption = re.sub(pattern, instead, caption)
    return caption


class _Text(HTMLParser):
    """Collects what stands between tags, references to characters as Beautiful Soup reads them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        """Pieces of text in their order."""

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_entityref(self, name: str) -> None:
        self.found.append(html5.get(f"{name};", f"&{name}"))

    def handle_charref(self, name: str) -> None:
        self.found.append(html.unescape(f"&#{name};"))


def _text_of(markup: str) -> str:
    parser = _Text()
    parser.feed(markup)
    parser.close()
    return "".join(parser.found)

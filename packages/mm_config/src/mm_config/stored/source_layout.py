"""How Python source is laid out so that `ruff format` and ruff's sorting of imports leave it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mm_config.stored.text_width import columns

LINE_LENGTH = 110


def quoted(text: str) -> str:
    """A string literal: the quotes that need fewer escapes, and escapes for what is not printable."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def fits(text: str, indent: int = 0) -> bool:
    """Whether a line is short enough."""
    return indent + columns(text) <= LINE_LENGTH


def bracketed(opening: str, lines: Iterable[str], suffix: str, indent: int) -> str:
    """Lines in round brackets below what opens them."""
    margin = " " * indent
    return "\n".join([f"{margin}{opening}(", *lines, f"{margin}){suffix}"])


def text_lines(prefix: str, text: str, suffix: str, indent: int) -> str:
    """A string too long for a line, as pieces in brackets, broken after spaces where there are any."""
    pieces = _pieces(text, LINE_LENGTH - indent - 4)
    return bracketed(prefix, [" " * (indent + 4) + quoted(piece) for piece in pieces], suffix, indent)


def import_lines(imports: Iterable[tuple[str, str, str]]) -> list[str]:
    """Import statements, sorted as by ruff: other packages, a blank line, this project's.

    Args:
        imports: Module, name there, name here.
    """
    foreign: list[str] = []
    own: list[str] = []
    modules: dict[str, list[tuple[str, str]]] = {}
    for module, there, here in imports:
        modules.setdefault(module, []).append((there, here))
    for module in sorted(modules, key=_natural):
        package = module.partition(".")[0]
        section = own if package.startswith("mm_") or package in ("examples", "experiments") else foreign
        plain = sorted((there for there, here in modules[module] if there == here), key=_member_order)
        statements = {
            there: f"from {module} import {there} as {here}"
            for there, here in modules[module]
            if there != here
        }
        if plain:
            statements[plain[0]] = _import_line(module, plain)
        section += [statements[first] for first in sorted(statements, key=_member_order)]
    return [*foreign, *([""] if foreign and own else []), *own]


def _import_line(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if fits(line):
        return line
    return bracketed(f"from {module} import ", [f"    {name}," for name in names], "", 0)


def _member_order(name: str) -> tuple[int, Any]:
    """Constants before classes before functions, each by name with numbers in order of size."""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    return kind, _natural(name)


def _natural(name: str) -> tuple[list[str | int], list[str | int]]:
    def parts(text: str) -> list[str | int]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]

    return parts(name.lower()), parts(name)


def _escaped(character: str, quote: str) -> str:
    if character in ("\\", quote):
        return f"\\{character}"
    return character if character.isprintable() else repr(character)[1:-1]


def _pieces(text: str, width: int) -> list[str]:
    """The text in pieces whose literals take at most `width` columns."""
    pieces, piece = [""], 2
    for word in re.findall(r"[^ ]* |[^ ]+", text):
        chunks = [word] if columns(quoted(word)) <= width else list(word)
        for chunk in chunks:
            taken = columns(quoted(chunk)) - 2
            if pieces[-1] and piece + taken > width:
                pieces.append("")
                piece = 2
            pieces[-1] += chunk
            piece += taken
    return pieces

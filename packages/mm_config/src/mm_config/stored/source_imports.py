"""What a written experiment file imports: a name for each class, and the statements as ruff sorts them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from mm_config.stored.text_width import width_of

LINE_LENGTH = 110


def imported(
    classes: Iterable[type[Any]], taken: Iterable[str]
) -> tuple[dict[type[Any], str], list[tuple[str, str, str]]]:
    """How the file calls each class, and its imports: module, name there, name here."""
    taken, here = set(taken), dict[tuple[str, str], str]()
    names: dict[type[Any], str] = {}
    for cls in sorted(classes, key=_own_first):
        outer, dot, inner = cls.__qualname__.partition(".")
        origin = (_public_home(cls.__module__, outer), outer)
        if origin not in here:
            here[origin] = free(outer, taken)
            taken.add(here[origin])
        names[cls] = here[origin] + dot + inner
    return names, [(*origin, name) for origin, name in here.items()]


def _public_home(module: str, name: str) -> str:
    """The nearest package around a module whose `__all__` has what the module calls so, else the module."""
    value, package = getattr(sys.modules[module], name), module
    while package := package.rpartition(".")[0]:
        face = sys.modules.get(package)
        if name in getattr(face, "__all__", ()) and getattr(face, name, None) is value:
            return package
    return module


def free(name: str, taken: set[str]) -> str:
    """The name, numbered where it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _own_first(cls: type[Any]) -> tuple[bool, str, str]:
    return not cls.__module__.startswith("mm_"), cls.__module__, cls.__qualname__


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
    if width_of(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def _member_order(name: str) -> tuple[int, Any]:
    """Constants before classes before functions, each by name with numbers in order of size."""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    return kind, _natural(name)


def _natural(name: str) -> tuple[list[str | int], list[str | int]]:
    def parts(text: str) -> list[str | int]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]

    return parts(name.lower()), parts(name)

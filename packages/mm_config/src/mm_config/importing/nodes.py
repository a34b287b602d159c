"""What a JSON or YAML file holds, with the line of every value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TypeAlias

import attrs

from mm_config.schema.identity import JSON

Scalar: TypeAlias = "bool | int | float | str | None"
Leaf: TypeAlias = "Scalar | tuple[Scalar, ...] | dict[str, JSON]"
"""A scalar, a list of scalars as a tuple (perhaps empty), or `{}` for a mapping without keys."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_REAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_CONSTANTS = {None: "null", True: "true", False: "false"}


def number_of(text: str) -> Leaf:
    """The number that a text of a script writes, or the text itself."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) and math.isfinite(float(text)) else text


def as_in_file(value: object) -> str:
    """A value as its file would show it, cut where it is long."""
    text = _CONSTANTS[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


@attrs.frozen
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    """In the file's order."""


@attrs.frozen
class Mapping:
    """Keys, each given once, in the file's order."""

    entries: tuple[tuple[str, Node], ...]
    """Key and value."""

    def get(self, key: str) -> Node | None:
        """The node under a key, or None where the mapping lacks it."""
        return next((node for name, node in self.entries if name == key), None)


@attrs.frozen
class Node:
    """A value and where it stands."""

    value: Scalar | Sequence | Mapping
    """What it is."""
    line: int
    """Line of the value's key, or of the value itself in a list and at the root; the first is 1."""


def node_in_file(node: Node) -> str:
    """As `as_in_file`; a mapping or a list by what it is."""
    if isinstance(node.value, Mapping):
        return "an object"
    return "a list" if isinstance(node.value, Sequence) else as_in_file(node.value)


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf, int]]:
    """The path, value and line of every leaf, in the file's order.

    Args:
        node: The root, or a node below it.
        path: The path of `node`. Keys are joined by dots, elements of a list are `[3]`: `a.b[3].c`.
    """
    value = node.value
    if isinstance(value, Mapping):
        for key, below in value.entries:
            yield from leaves(below, f"{path}.{key}" if path else key)
        if not value.entries:
            yield path, {}, node.line
    elif isinstance(value, Sequence):
        scalars = _scalars(value)
        if scalars is not None:
            yield path, scalars, node.line
            return
        for index, below in enumerate(value.items):
            yield from leaves(below, f"{path}[{index}]")
    else:
        yield path, value, node.line


def plain(node: Node) -> JSON:
    """The data without its lines: None, bool, int, float, str, list and dict."""
    value = node.value
    if isinstance(value, Mapping):
        return {key: plain(below) for key, below in value.entries}
    if isinstance(value, Sequence):
        return [plain(below) for below in value.items]
    return value


def _scalars(sequence: Sequence) -> tuple[Scalar, ...] | None:
    found: list[Scalar] = []
    for item in sequence.items:
        if isinstance(item.value, Sequence | Mapping):
            return None
        found.append(item.value)
    return tuple(found)

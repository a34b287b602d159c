"""What the files say: one fact per value, with the file and the line where it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.nodes import Leaf, Node, leaves, number_of

_INDEX = re.compile(r"\[\d+\]")


@attrs.frozen
class Source:
    """A file, or one kind of statement in a script."""

    file: Path
    """The file."""
    kind: str
    """`model.json`, `inference_model.json`, `data.json`, `fsdp2.yaml`, `layerzero.yaml`, `tools.json`,
    `native.yaml`, `shell flag`, `environment variable`, `shell variable`, or another tool's file."""


@attrs.frozen(eq=False)
class Fact:
    """One value that a file gives; equal to itself alone."""

    source: Source
    """Where it stands."""
    path: str
    """Keys joined by dots, list elements as `[3]` (`a.b[3].c`); a flag with its dashes; a variable's name."""
    value: Leaf
    """Of a variable or flag always text: a flag with several values has a tuple of them, one without any
    has True."""
    line: int
    """From 1."""

    @property
    def place(self) -> str:
        """`file:line`, the path of a problem with this fact."""
        return f"{self.source.file}:{self.line}"


def facts_of(node: Node, source: Source) -> tuple[Fact, ...]:
    """The facts of a file: its leaves, in the file's order."""
    return tuple(Fact(source, path, value, line) for path, value, line in leaves(node))


def generic(path: str) -> str:
    """A path as a table names it: every element of a list is `[]`."""
    return _INDEX.sub("[]", path)


TEXT_KINDS = ("shell flag", "environment variable", "shell variable")
"""Kinds of sources that know texts alone."""


def typed(fact: Fact) -> Any:
    """A fact's value; a text of a script as the number that it writes."""
    if fact.source.kind in TEXT_KINDS and isinstance(fact.value, str):
        return number_of(fact.value)
    return fact.value

"""YAML with the scalars of YAML 1.2's core schema as data with lines."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from mm_config.importing.nodes import Mapping, Node, Sequence
from mm_config.importing.parsers.text import Mistakes, read_text
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.ranges import is_unicode
from mm_config.stored.parsing import MAX_DEPTH, core_loader, parse_yaml, shown_key, written_out

_MAX_BYTES = 2**18  # A sharding configuration has a kilobyte; PyYAML needs seconds for this much.
_LINE = re.compile(r"line (\d+)(?:, column \d+)?: ")


def read_yaml(file: Path) -> Node:
    """The data of a YAML file with one document.

    Raises:
        UserError: The file can't be read (see `read_text`), is no YAML, or uses tags,
            keys that are no text or are given twice, infinite numbers. Each problem names the file and
            the line.
    """
    text = read_text(file, _MAX_BYTES).text
    try:
        # The same data twice: `parse_yaml` refuses what is not plain, the tree of nodes has the lines.
        tree = parse_yaml(text, aliases=True)
        node = core_loader()(text).get_single_node()
    except UserError as error:
        raise UserError(_placed(problem, file) for problem in error.problems) from None
    except RecursionError:
        raise UserError(Problem(f"{file}:1", f"nested deeper than {MAX_DEPTH} levels")) from None
    if node is None:
        raise UserError(Problem(f"{file}:1", "is empty"))
    mistakes = Mistakes(file)
    read = _node(tree, written_out(node), "", 0, mistakes)
    mistakes.check()
    return read


def _placed(problem: Problem, file: Path) -> Problem:
    match = _LINE.match(problem.message)
    line = match[1] if match else "1"
    return Problem(f"{file}:{line}", problem.message[match.end() if match else 0 :])


def _node(tree: Any, node: Any, path: str, depth: int, mistakes: Mistakes) -> Node:
    line: int = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise mistakes.fatal(line, f"{path}: nested deeper than {MAX_DEPTH} levels")
    if node.id == "mapping":
        return Node(_mapping(tree, node, path, depth, mistakes), line)
    if node.id == "sequence":
        pairs = enumerate(zip(tree, node.value, strict=True))
        items = (_node(item, below, f"{path}[{i}]", depth + 1, mistakes) for i, (item, below) in pairs)
        return Node(Sequence(tuple(items)), line)
    where = f"{path}: " if path else ""
    if isinstance(tree, float) and not math.isfinite(tree):
        mistakes.add(line, f"{where}{node.value} is no number that a value here may be")
    if isinstance(tree, str) and not is_unicode(tree):
        mistakes.add(line, f"{where}holds a lone surrogate, which is no Unicode text: {shown_key(tree)}")
    return Node(tree, line)


def _mapping(tree: Any, node: Any, path: str, depth: int, mistakes: Mistakes) -> Mapping:
    entries: dict[str, Node] = {}
    for (key, value), (key_node, value_node) in zip(tree, node.value, strict=True):
        line: int = key_node.start_mark.line + 1
        if not isinstance(key, str):
            where = f"{path}: " if path else ""
            written = shown_key(key_node.value) if key_node.id == "scalar" else f"a {key_node.id}"
            mistakes.add(line, f"{where}a key must be a text, got {written}; write it in quotes")
            continue
        if not is_unicode(key):
            mistakes.add(line, f"{path}: the key {shown_key(key)} holds a lone surrogate")
            continue
        where = f"{path}.{shown_key(key)}" if path else shown_key(key)
        if key in entries:
            mistakes.add(line, f"{where}: the key is given twice, first on line {entries[key].line}")
        entries[key] = Node(_node(value, value_node, where, depth + 1, mistakes).value, line)
    return Mapping(tuple(entries.items()))

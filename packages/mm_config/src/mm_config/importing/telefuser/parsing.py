"""A dump as TeleFuser's configuration objects: every key known to the table, every value of its type."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

from mm_config.importing.nodes import Mapping, Node, Sequence, leaves, node_in_file, plain
from mm_config.importing.rows import Row
from mm_config.importing.telefuser.readings import Classes, Config, Value, joined
from mm_config.schema.errors import Problem, UserError

_MISSPELT = 0.86
"""Likeness of a misspelt key to the one that is meant; keys of newer versions resemble older ones less."""
_STAGE_DEPTH = 2
"""Dots in the key of a stage's field: layer2_inference_config.dit_config.torch_dtype."""


@attrs.frozen
class Parsed:
    """What is gathered while a dump is walked through."""

    file: Path
    """The dump."""
    classes: Classes
    """What there is in a dump."""
    allow_unknown: bool = False
    """Whether also keys that somebody misspelt are noted and not refused."""
    facts: list[Value] = attrs.field(factory=list[Value])
    """Each leaf, in its order."""
    problems: list[Problem] = attrs.field(factory=list[Problem])
    """What is wrong."""
    damaged: set[str] = attrs.field(factory=set[str])
    """Keys with something wrong, and the options (of attention, of a format) that they stand among: what
    these say besides is not to be believed."""

    def refuse(self, value: Value | Config, message: str) -> None:
        """Notes why a value can't be taken over."""
        self.problems.append(Problem(f"{self.file}:{value.line}", f"{value.key or 'the dump'}: {message}"))
        self.damaged.add(value.key)
        if value.key.count(".") > _STAGE_DEPTH:
            self.damaged.add(value.key.rpartition(".")[0])

    def check(self) -> None:
        """Raises UserError with all problems, if there are any."""
        if self.problems:
            raise UserError(dict.fromkeys(self.problems))


def is_nothing(node: Node | None) -> bool:
    """Whether a key is missing or says None, which TeleFuser also writes as text."""
    return node is None or node.value is None or node.value == "None"


def read_config(node: Node, owner: str, key: str, found: Parsed, **classes: str) -> Config:
    """An object of the dump.

    Args:
        node: Where it stands.
        owner: Its class, as the table calls it.
        key: Its key from the root on.
        found: Takes the facts, and what is wrong.
        classes: Classes of fields, where they are not the table's.
    """
    if not isinstance(node.value, Mapping):
        found.refuse(Value(None, key, node.line), f"expected an object, got {node_in_file(node)}")
        return Config(owner, key, node.line, {}, found.classes)
    rows, fields = found.classes[owner], dict[str, Any]()
    for name, below in node.value.entries:
        where, row = joined(key, name), rows.get(name)
        if row is None:
            found.facts.extend(Value(value, path, line) for path, value, line in leaves(below, where))
            # A newer version writes its own keys beside the known ones; who misspells one, leaves it out.
            missing = [known for known in rows if node.value.get(known) is None]
            meant = get_close_matches(name, missing, n=1, cutoff=_MISSPELT)
            if meant and not found.allow_unknown:
                title = owner if owner[0].islower() else f"TeleFuser's {owner}"
                text = f"{title} has no such field; did you mean {meant[0]}?"
                found.refuse(Value(None, where, below.line), text)
            continue
        fields[name] = _field(below, row, classes.get(name, row.inside), where, found)
    return Config(owner, key, node.line, fields, found.classes)


def _field(node: Node, row: Row, inside: str, key: str, found: Parsed) -> Any:
    """A `Config`, a tuple of them, a `Value`, or None for an object that is null."""
    if inside and is_nothing(node):
        found.facts.append(Value(None, key, node.line, row=row))
        return None
    if row.many:
        if not isinstance(node.value, Sequence):
            found.refuse(Value(None, key, node.line), f"expected a list, got {node_in_file(node)}")
            return ()
        if not node.value.items:
            found.facts.append(Value((), key, node.line, row=row))
        items = enumerate(node.value.items)
        return tuple(read_config(item, inside, f"{key}[{at}]", found) for at, item in items)
    if inside:
        return read_config(node, inside, key, found)
    value = Value(_read(node, row, key, found), key, node.line, row=row)
    found.facts.append(value)
    return value


def _read(node: Node, row: Row, key: str, found: Parsed) -> Any:
    """What a field says; its class's default after what is wrong was noted."""
    value = node.value
    if row.read is None:
        return str(plain(node)) if isinstance(value, (Mapping, Sequence)) else value
    items = tuple(item.value for item in value.items) if isinstance(value, Sequence) else value
    try:
        return row.read(None if is_nothing(node) else items)
    except ValueError as error:
        found.refuse(Value(None, key, node.line), f"{error}, got {node_in_file(node)}")
        return row.default

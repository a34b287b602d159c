"""What the index takes from a run folder: its spec's fields by path and hashes today, and what names met."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.runs.inputs import named_contents
from mm_config.runs.record import SPEC_FILE, RunRecord
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import info_of, spec_fields
from mm_config.schema.identity import spec_hash
from mm_config.schema.types import class_of, is_dict, is_list, is_spec, is_tuple
from mm_config.stored.files import load_identity, wire_value
from mm_config.stored.json_files import read_json


@attrs.frozen
class Stored:
    """A stored spec as the spec classes of today read it."""

    fields: dict[str, Any]
    """Each field's value as JSON has it, by canonical path without the leading `spec.`.

    A field that holds a spec has the spec's wire tag; a spec that enters the identity by its hash is one
    field with that hash; a tuple of plain values is one field.
    """
    spec_hash: str | None = None
    """None where the payload can't be loaded today."""
    exact_hash: str | None = None
    """Today's."""
    named: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The digest of the content that each name met, by `name_key`."""
    migrated: bool = False
    """Whether a spec in the payload was written under an older schema, which changes its hashes."""

    def updated(self, record: RunRecord) -> RunRecord:
        """The record with the hashes of today, where a new schema made them others than those of its start.

        A payload that was edited is no equivalent of what was run.
        """
        if not self.migrated:
            return attrs.evolve(record, spec_hash_now=None, exact_hash_now=None)
        return attrs.evolve(
            record,
            spec_hash_now=None if self.spec_hash == record.spec_hash else self.spec_hash,
            exact_hash_now=None if self.exact_hash == record.exact_hash else self.exact_hash,
        )


def read_stored(folder: Path, *, by_hash: bool = False) -> Stored:
    """Reads the spec of a run folder.

    Fields that were added since it was written have their neutral values, older schemas are migrated.
    A payload that can't be loaded gives the fields that its JSON names; a file that is no JSON gives
    none.

    Args:
        folder: The run folder.
        by_hash: Whether to go into specs that enter the identity by their hash. In the index they would
            be most of its fields; what a training says is asked of its own run.
    """
    file, named = folder / SPEC_FILE, named_contents(folder)
    try:
        found = load_identity(file)
        fields = dict(_fields_of_spec(found.spec, "", by_hash))
        return Stored(fields, found.spec_hash, found.exact_hash, named, migrated=bool(found.migrated))
    except UserError:
        pass
    try:
        content = read_json(file).get("spec")
    except UserError:
        content = None
    return Stored(dict(_fields_of_json(content, "")), named=named)


def read_all(folders: Iterable[Path], read: Callable[[], object] = lambda: None) -> dict[Path, Stored]:
    """Reads run folders and calls `read` after each. It takes long, and what they store never changes."""
    contents: dict[Path, Stored] = {}
    for folder in folders:
        contents[folder] = read_stored(folder)
        read()
    return contents


def spec_problems(folder: Path, record: RunRecord) -> tuple[Problem, ...]:
    """What is wrong with the spec.json of a run: it can't be loaded, or is not what the run started with."""
    file = folder / SPEC_FILE
    try:
        found = load_identity(file)
    except UserError as error:
        return error.problems
    pairs = (
        ("spec_hash", record.spec_hash, found.spec_hash),
        ("exact_hash", record.exact_hash, found.exact_hash),
    )
    for name, then, now in pairs:
        if then != now and not found.migrated:
            why = "it was edited, or a class changed without a new schema"
            message = f"is not what the run was started with: {name} is {now[:12]}, was {then[:12]}; {why}"
            return (Problem(str(file), message),)
    return ()


def _fields_of_spec(value: Any, path: str, by_hash: bool) -> Iterator[tuple[str, Any]]:
    if is_spec(value):
        if path:
            yield path, tag_of(value)
        for attribute in spec_fields(class_of(value)):
            inside, below = getattr(value, attribute.name), _below(path, attribute.name)
            if info_of(attribute).by_hash and is_spec(inside) and not by_hash:
                yield below, spec_hash(inside)
            else:
                yield from _fields_of_spec(inside, below, by_hash)
    elif is_tuple(value) and any(map(is_spec, value)):
        for index, item in enumerate(value):
            yield from _fields_of_spec(item, _below(path, str(index)), by_hash)
    else:
        yield path, wire_value(value)


def _fields_of_json(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_dict(value):
        if path and "~" in value:
            yield path, value["~"]
        for name, item in value.items():
            if name.isidentifier():  # No condition can name another key.
                yield from _fields_of_json(item, _below(path, name))
    elif is_list(value) and any(map(is_dict, value)):
        for index, item in enumerate(value):
            yield from _fields_of_json(item, _below(path, str(index)))
    elif path:
        yield path, value


def _below(path: str, name: str) -> str:
    # Runs share their paths, and those of all runs are in memory while an index is made anew.
    return sys.intern(f"{path}.{name}" if path else name)

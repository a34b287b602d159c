"""A spec as a list of sections: each spec inside it with the leaves that it declares itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import attrs

from mm_config.schema.docstrings import help_texts
from mm_config.schema.evolve import ROOT, Leaf, leaves
from mm_config.schema.fields import info_of, spec_fields
from mm_config.schema.root import RootSpec
from mm_config.schema.types import class_of, is_spec


@attrs.frozen
class Section:
    """One spec inside a root spec, or the root spec itself."""

    path: str
    """Canonical path; `spec` for the root."""
    value: Any
    help: str
    """The docstring of the field that holds it."""
    by_hash: bool
    """Whether it enters the identity by its own hash; its leaves are then left out."""
    leaves: tuple[Leaf, ...]


def sections(spec: RootSpec) -> Iterator[Section]:
    """The sections of a spec, outer before inner."""
    inside: dict[str, list[Leaf]] = {}
    for leaf in leaves(spec, by_hash=False):
        inside.setdefault(f"{ROOT}.{leaf.path}".rpartition(".")[0], []).append(leaf)
    yield Section(ROOT, spec, "", False, tuple(inside.get(ROOT, ())))
    for path, value, text, by_hash in _nested(spec, ROOT):
        yield Section(path, value, text, by_hash, tuple(inside.get(path, ())))


def _nested(spec: Any, path: str) -> Iterator[tuple[str, Any, str, bool]]:
    texts = help_texts(class_of(spec))
    for attribute in spec_fields(class_of(spec)):
        by_hash = info_of(attribute).by_hash
        for at, value in _specs_in(getattr(spec, attribute.name), f"{path}.{attribute.name}"):
            yield at, value, texts.get(attribute.name, ""), by_hash
            if not by_hash:
                yield from _nested(value, at)


def _specs_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_spec(value):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(cast("tuple[Any, ...]", value)):
            if is_spec(item):
                yield f"{path}.{index}", item

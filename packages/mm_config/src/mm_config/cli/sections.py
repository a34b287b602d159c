"""A spec as a list of sections: each spec inside it with the leaves that it declares itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from mm_config.schema.docstrings import help_texts
from mm_config.schema.evolve import ROOT, Leaf, leaves, specs_inside
from mm_config.schema.fields import info_of
from mm_config.schema.root import RootSpec


@attrs.frozen
class Section:
    """One spec inside a root spec, or the root spec itself."""

    path: str
    """Canonical path; `spec` for the root."""
    value: Any
    """The spec."""
    help: str
    """The docstring of the field that holds it."""
    by_hash: bool
    """Whether it enters the identity by its own hash; its leaves are then left out."""
    leaves: tuple[Leaf, ...]
    """What can be set in it."""


def sections(spec: RootSpec) -> Iterator[Section]:
    """The sections of a spec, outer before inner."""
    inside: dict[str, list[Leaf]] = {}
    for leaf in leaves(spec, by_hash=False):
        inside.setdefault(f"{ROOT}.{leaf.path}".rpartition(".")[0], []).append(leaf)
    yield Section(ROOT, spec, "", False, tuple(inside.get(ROOT, ())))
    for path, value, attribute, owner in specs_inside(spec):
        text = help_texts(owner).get(attribute.name, "")
        yield Section(path, value, text, info_of(attribute).by_hash, tuple(inside.get(path, ())))

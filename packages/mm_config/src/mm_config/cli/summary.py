"""The page of `mm show`: what a spec does, and what it says beyond the defaults of its classes."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.cli.page import BLANK, Line, paragraph
from mm_config.cli.values import fitted, is_default, mark
from mm_config.rules.carried_out import refusals
from mm_config.rules.wording import counted
from mm_config.schema.decorator import tag_of
from mm_config.schema.evolve import ROOT
from mm_config.schema.fields import (
    EXECUTION,
    SEMANTIC,
    Group,
    Role,
    field_types,
    info_of,
    narrowed,
    spec_fields,
)
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.schema.types import class_of, is_spec, is_spec_class, is_tuple
from mm_config.specs.requests import GenerationRequest
from mm_config.stored.describe import describe
from mm_config.stored.text_width import width_of

if TYPE_CHECKING:
    from mm_config.runs.marks import Mark

_LEAST_ROOM = 24
"""Columns that a value gets at least, however narrow the terminal."""


@attrs.frozen
class _Row:
    """A field of the page, or a spec that a field holds."""

    path: str
    """Canonical path."""
    group: Group
    """Where the page has it."""
    value: Any = None
    """A field's value; None for a spec."""
    unit: str = ""
    """Of the value; empty where it has none."""
    about: str = ""
    """What is said of a spec."""
    is_default: bool = False
    """Whether the value is the field's default."""
    note: str = ""
    """What is said beside it."""


def summary_lines(spec: RootSpec, width: int) -> list[Line]:
    """The page, in about `width` columns.

    A head with label, kind and both ids, a few sentences, then each group of fields that are not at
    their class's default, and how many are.
    """
    rows = [row for row in _rows(spec) if row.path != "name"]
    refused = [problem.path for problem in refusals(spec)]
    said = [attrs.evolve(row, note=mark(f"{ROOT}.{row.path}", refused)) for row in rows if not row.is_default]
    named = max((len(row.path) for row in said), default=0)
    lines = [_head(spec), BLANK, *paragraph(describe(spec), width=width)]
    for group in Group:
        if found := [row for row in said if row.group == group]:
            lines += [BLANK, ((group.value, "bold"),), *(_line(row, named, width) for row in found)]
    if hidden := len(rows) - len(said):
        note = f"{counted(hidden, 'more field')} at {'its' if hidden == 1 else 'their'} default"
        lines += [BLANK, ((f"{note}{'' if hidden == 1 else 's'}; --format flat shows all", "dim"),)]
    return lines


def request_lines(
    requests: Sequence[tuple[str, GenerationRequest]], mark: Mark | None, width: int
) -> list[Line]:
    """What stands beside a spec, above its page: the run that made a video, and what requests say.

    Args:
        requests: Each by the first segment of its paths.
        mark: What a video says of itself; None for no video.
        width: Columns of the terminal.
    """
    lines: list[Line] = []
    if mark is not None:
        run, content = mark.run or "none that was recorded", (mark.made_of or "")[:12] or "not recorded"
        lines = [(("made by the run ", ""), (run, "bold"), ("  made of ", "dim"), (content, "cyan"))]
    for name, request in requests:
        rows = [row for row in _rows(request) if not row.is_default or row.path == "seed"]
        named = max(len(row.path) for row in rows)
        lines += [((name, "bold"),), *(_line(row, named, width) for row in rows), BLANK]
    return lines


def _head(spec: RootSpec) -> Line:
    return (
        (spec.name or "(unnamed)", "bold"),
        (f"  {tag_of(spec)}", ""),
        ("  spec ", "dim"),
        (spec_hash(spec)[:12], "cyan"),
        ("  exact ", "dim"),
        (exact_hash(spec)[:12], "cyan"),
    )


def _line(row: _Row, named: int, width: int) -> Line:
    outer, dot, name = row.path.rpartition(".")
    margin, gap = "  ", " " * (named - len(row.path) + 2)
    unit = f" {row.unit}" if row.unit else ""
    note = f"  {row.note}" if row.note else ""
    room = max(width - len(margin) - named - 2 - width_of(unit + note), _LEAST_ROOM)
    text = (row.about, "") if row.about else (fitted(row.value, room), "cyan")
    return ((margin, ""), (outer + dot, "dim"), (name + gap, ""), text, (unit + note, "dim"))


def _rows(spec: Any, prefix: str = "", outer: Role = SEMANTIC, around: Group | None = None) -> Iterator[_Row]:
    types = field_types(class_of(spec))
    for attribute in spec_fields(class_of(spec)):
        value, info = getattr(spec, attribute.name), info_of(attribute)
        path, role = prefix + attribute.name, narrowed(outer, info.role)
        own = around or info.group or Group.OTHERS
        group = own if role is SEMANTIC else Group.EXECUTION if role is EXECUTION else Group.PLACES
        if is_spec(value) and info.by_hash:
            label = f"{value.name}, " if value.name else ""
            yield _Row(path, group, about=f"{label}{tag_of(value)} spec {spec_hash(value)[:12]}")
        elif is_spec(value):
            inside = list(_rows(value, f"{path}.", role, own))
            if _is_choice(types[attribute.name]):
                yield _Row(path, group, about=tag_of(value))
            elif value != attribute.default and all(row.is_default for row in inside):
                yield _Row(path, group, about="at its defaults")
            yield from inside
        elif is_tuple(value) and any(map(is_spec, value)):
            for index, item in enumerate(value):
                yield _Row(f"{path}.{index}", group, about=tag_of(item))
                yield from _rows(item, f"{path}.{index}.", role, own)
        else:
            unit = info.unit if info.unit and value is not None else ""
            yield _Row(path, group, value, unit, is_default=is_default(attribute, value))


def _is_choice(expected: Any) -> bool:
    """Whether a field can hold specs of several classes."""
    kinds = [kind for kind in typing.get_args(expected) or (expected,) if kind is not type(None)]
    return len(kinds) > 1 or not is_spec_class(kinds[0])

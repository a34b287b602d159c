"""The page of `mm diff`: the changes by what they are in, old value and new, and what they alter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from mm_config.cli.page import BLANK, Line, paragraph
from mm_config.cli.values import outline
from mm_config.rules.wording import counted
from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import Change, diff, for_person, unshared
from mm_config.schema.evolve import ROOT
from mm_config.schema.fields import EXECUTION, LOCATION, SECRET, SEMANTIC, Effect, Role
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.root import RootSpec, effect_of
from mm_config.schema.types import is_spec
from mm_config.specs.requests import GenerationRequest
from mm_config.specs.weights import TrainedBy
from mm_config.stored.text_width import cut, width_of

if TYPE_CHECKING:
    from mm_config.runs.provenance_diff import OriginChange

# By role and by whether the field lies in a spec that enters the identity by its spec_hash.
_HEADINGS = {
    (SEMANTIC, False): "changes what is computed (in spec_hash and exact_hash)",
    (EXECUTION, False): "changes only how it is computed (in exact_hash alone)",
    (EXECUTION, True): "changes how a training that weights come from was computed (in no hash)",
    (LOCATION, False): "changes names and paths (in no hash)",
    (SECRET, False): "changes names of secrets (in no hash)",
}
_MARGIN = 2
_LEAST_ROOM = 24
"""Columns that a value gets at least, however narrow the terminal."""


Requests = Sequence[tuple[str, GenerationRequest]]


@attrs.frozen
class Comparison:
    """Two specs and how they differ."""

    old: RootSpec
    """The first target's."""
    new: RootSpec
    """The second target's."""
    changes: tuple[tuple[Change, Effect], ...]
    """Each with what it alters."""
    only_old: tuple[str, ...]
    """Paths that only the first has: where specs are of different kinds, and where one stands alone."""
    only_new: tuple[str, ...]
    """The same for the second."""
    requests: tuple[Change, ...]
    """The fields in which the requests beside them differ."""
    content: tuple[OriginChange, ...] | None
    """What runs of them were made of and is not the same; None where that is not known of both."""
    unread: str
    """Both `made_of` where they differ and not all inputs are here, and whose are not; else empty."""
    same_result: bool
    """Whether the spec_hashes are equal."""
    equal: bool
    """Whether the exact_hashes are equal, the requests but for their paths, and the content."""


def compare(
    old: RootSpec,
    new: RootSpec,
    asked: Requests = (),
    asked_now: Requests = (),
    content: tuple[OriginChange, ...] | None = None,
    unread: str = "",
) -> Comparison:
    """How two specs differ, and what stands beside them.

    Args:
        old, new: The specs.
        asked, asked_now: The requests beside them, each by the first segment of its paths.
        content: What runs of them were made of and is not the same.
        unread: As `Comparison.unread`.
    """
    requests = tuple(_request_changes(asked, asked_now))
    return Comparison(
        old=old,
        new=new,
        changes=tuple((change, effect_of(old, change.path, change.role)) for change in diff(old, new)),
        only_old=unshared(old, new) + tuple(name for name, _ in asked if not asked_now),
        only_new=unshared(new, old) + tuple(name for name, _ in asked_now if not asked),
        requests=requests,
        content=content,
        unread=unread,
        same_result=spec_hash(old) == spec_hash(new),
        equal=exact_hash(old) == exact_hash(new)
        and all(one.role is LOCATION for one in requests)
        and not content
        and not unread,
    )


def diff_lines(compared: Comparison, labels: tuple[str, str], width: int) -> list[Line]:
    """The page, in about `width` columns.

    Args:
        compared: Two specs and how they differ.
        labels: What the specs are called.
        width: Columns of the terminal.
    """
    lines = [*_sides(compared, labels), BLANK, *_verdicts(compared)]
    fields = [pair for pair in compared.changes if pair[0].path != ROOT]
    asked = [(change, Effect.REQUESTS) for change in compared.requests]
    named = max((len(change.path) for change, _ in (*asked, *fields)), default=0)
    if compared.content:
        lines += [BLANK, (("was made of other content, or of the same in another order", "bold"),)]
        lines += [
            ((f"  {change.name}  ", "dim"), (f"{change.old} -> {change.new}", ""))
            for change in compared.content
        ]
    if asked:
        title = "changes what was asked for (beside the spec)"
        lines += [BLANK, ((title, "bold"),), *_group_lines(asked, named, width)]
    for key, title in _HEADINGS.items():
        if group := [(change, effect) for change, effect in fields if _group(change) == key]:
            lines += [BLANK, ((title, "bold"),), *_group_lines(group, named, width)]
    for place, paths in (("first", compared.only_old), ("second", compared.only_new)):
        if paths:
            names = ", ".join(path.removeprefix(f"{ROOT}.") for path in paths)
            lines += [BLANK, ((f"only in the {place}", "bold"),), *paragraph(names, indent=2, width=width)]
    return lines


def _request_changes(old: Requests, new: Requests) -> Iterator[Change]:
    """One change for each field; where there are not as many, the requests themselves are the change."""
    if old and new and len(old) != len(new):
        was, now = (tuple(request.prompt for _, request in side) for side in (old, new))
        yield Change("requests", SEMANTIC, was, now)
        return
    for (name, before), (_, after) in zip(old, new, strict=False):
        for change in diff(before, after):
            yield attrs.evolve(change, path=name + change.path.removeprefix(ROOT))


def grouped(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Changes under what they can alter, the results first; only headings that have some."""
    listed = list(changes)
    groups = {title: [one for one in listed if _group(one) == key] for key, title in _HEADINGS.items()}
    return {title: found for title, found in groups.items() if found}


def _group(change: Change) -> tuple[Role, bool]:
    return change.role, change.by_hash and change.role is EXECUTION


def _sides(compared: Comparison, labels: tuple[str, str]) -> list[Line]:
    sides = zip(("first", "second"), (compared.old, compared.new), labels, strict=True)
    return [
        (
            (f"{place:<6}", "dim"),
            ("  spec ", "dim"),
            (spec_hash(spec)[:12], "cyan"),
            ("  exact ", "dim"),
            (exact_hash(spec)[:12], "cyan"),
            (f"  {tag_of(spec)}  ", ""),
            (label, "bold"),
        )
        for place, spec, label in sides
    ]


def _verdicts(compared: Comparison) -> list[Line]:
    verdicts: list[tuple[str, str]] = []
    if compared.unread:
        verdicts.append((f"made_of differs: {compared.unread}", "red"))
    elif others := [one for one in compared.content or () if not one.is_order]:
        verdicts.append((f"made_of differs: {counted(len(others), 'input')}", "red"))
    elif compared.content:
        verdicts.append(("the order of samples differs, of which made_of knows nothing", "red"))
    if not compared.changes and not compared.requests:
        return [(verdict,) for verdict in (*verdicts, ("equal in every field", "green"))]
    if compared.requests:
        verdicts.append((f"the requests differ in {counted(len(compared.requests), 'field')}", "red"))
    if compared.changes and compared.changes[0][0].path == ROOT:
        kinds = f"{tag_of(compared.old)} and {tag_of(compared.new)}"
        verdicts.append((f"different kinds, {kinds}: only the fields that both have are compared", "yellow"))
    if compared.same_result:
        of_what = " of equal requests" if compared.requests else ""
        verdicts.append((f"spec_hash is equal: both compute the same{of_what}, in exact arithmetic", "green"))
    else:
        verdicts.append((f"spec_hash differs{_altered(compared)}", "red"))
    if exact_hash(compared.old) == exact_hash(compared.new):
        verdicts.append(("exact_hash is equal: both compute it in the same way", "green"))
    else:
        only = ": only how it is computed" if compared.same_result else ""
        verdicts.append((f"exact_hash differs{only}", "red"))
    return [(verdict,) for verdict in verdicts]


def _altered(compared: Comparison) -> str:
    found = [effect for change, effect in compared.changes if change.role is SEMANTIC and change.path != ROOT]
    if not found:
        return ""
    *first, last = [f"the {effect.value}" for effect in Effect if effect in found]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f": {counted(len(found), 'change')} to {listed}"


def _group_lines(group: list[tuple[Change, Effect]], named: int, width: int) -> Iterator[Line]:
    """`path  old -> new unit  note`; the new value stands below the old one where both are long."""
    room = width - _MARGIN - named - 2
    notes = [effect.value if change.role is SEMANTIC else "" for change, effect in group]
    texts = [f"{_whole(change.old)} -> {_whole(change.new)}{_unit(change)}" for change, _ in group]
    short = [width_of(text) + 2 + width_of(note) <= room for text, note in zip(texts, notes, strict=True)]
    widest = max((width_of(text) for text, fits in zip(texts, short, strict=True) if fits), default=0)
    column = min(widest, room - 2 - max(map(width_of, notes)))
    for (change, _), text, fits, note in zip(group, texts, short, notes, strict=True):
        outer, dot, name = change.path.rpartition(".")
        path: Line = ((" " * _MARGIN + outer + dot, "dim"), (name + " " * (named - len(change.path) + 2), ""))
        ending: Line = ((_unit(change), "dim"),)
        if fits:
            old, new = _whole(change.old), _whole(change.new)
            yield (*path, (old, "red"), (" -> ", "dim"), (new, "green"), *ending, _note(text, note, column))
        else:
            old, new = _cut_values(change, max(room - width_of(_unit(change) + note) - 2, _LEAST_ROOM))
            arrow = " " * (named + _MARGIN - 1) + "-> "
            yield (*path, (old, "red"))
            yield ((arrow, "dim"), (new, "green"), *ending, _note(new + _unit(change), note, column))


def _note(before: str, note: str, column: int) -> tuple[str, str]:
    """A note in its column, or behind what reaches beyond it."""
    return (" " * (max(column - width_of(before), 0) + 2) + note if note else "", "yellow")


def _unit(change: Change) -> str:
    return f" {change.unit}" if change.unit else ""


def _whole(value: Any) -> str:
    if isinstance(value, TrainedBy):
        return f"{tag_of(value)} {spec_hash(value.spec)[:12]}"
    return outline(value) if is_spec(value) else for_person(value)


def _cut_values(change: Change, room: int) -> tuple[str, str]:
    """Both values in about `room` columns each; of long texts, the part where they begin to differ."""
    old, new = change.old, change.new
    if isinstance(old, str) and isinstance(new, str) and max(width_of(repr(old)), width_of(repr(new))) > room:
        pairs = enumerate(zip(old, new, strict=False))
        same = next((index for index, (a, b) in pairs if a != b), min(len(old), len(new)))
        start = max(same - room // 4, 0)
        return _excerpt(old, start, room), _excerpt(new, start, room)
    return _cut(_whole(old), room), _cut(_whole(new), room)


def _excerpt(text: str, start: int, room: int) -> str:
    part = cut(text[start:], room - 8)
    before, after = "..." if start else "", "..." if start + len(part) < len(text) else ""
    return before + repr(part) + after


def _cut(text: str, room: int) -> str:
    return text if width_of(text) <= room else f"{cut(text, room - 4)} ..."

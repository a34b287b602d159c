"""What a spec asks for that a runner can't do: nothing that a spec says is ignored in silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import for_person
from mm_config.schema.errors import Problem, prefixed
from mm_config.schema.evolve import ROOT, is_inside, leaves, unchecked
from mm_config.schema.fields import ABSENT, info_of, spec_fields
from mm_config.schema.installed import loaded, registered
from mm_config.schema.types import choices_of, class_of, is_spec

REFUSALS = "mm.refusals"
"""Entry points: the `CarriedOut` of the runner of a root spec's tag; importing it needs no torch."""


@attrs.frozen
class CarriedOut:
    """What a runner makes of its specs, known without the runner."""

    runner: str
    """Who it is, for messages."""
    fields: frozenset[str]
    """Paths of the fields that it carries out although they were added after their class's birth, without the
    leading `spec.`; `recompute` includes what is inside."""
    problems: Callable[[Any], Iterable[Problem]]
    """Values of known fields that it can't do yet, as problems with paths inside the spec."""

    def refusals(self, spec: Any) -> Iterator[Problem]:
        """What the runner would have to ignore: one problem for each field."""
        yield from beyond(spec, self.fields, self.runner)
        yield from prefixed(self.problems(spec), "spec")


def refusals(spec: Any) -> list[Problem]:
    """What a spec says that its runner can't do yet; empty where the whole spec can be run."""
    return [problem for carried_out in _known(spec) for problem in carried_out.refusals(spec)]


@attrs.frozen
class NotCarriedOut:
    """What can only be refused of all that could be put into a spec; paths start with `spec.`."""

    fields: frozenset[str]
    """The fields and specs inside it of which no other value can be run, whatever they are set to."""
    choices: Mapping[str, tuple[Any, ...]]
    """Of fields with some values that can be run: the listed ones that can't."""


def not_carried_out(spec: Any) -> NotCarriedOut:
    """What a spec's runner would only refuse, asked of the runner for each choice of each field."""
    known = _known(spec)
    fields = frozenset(path for one in known for path, _, _ in _unknown(spec, one.fields, ROOT))
    choices: dict[str, tuple[Any, ...]] = {}
    for leaf in leaves(spec, by_hash=False) if known else ():
        path, listed = f"{ROOT}.{leaf.path}", list(choices_of(leaf.type))
        if listed and not is_inside(path, fields):
            choices[path] = tuple(one for one in listed if _is_refused(known, spec, leaf.path, one))
    return NotCarriedOut(fields, choices)


def _is_refused(known: Sequence[CarriedOut], spec: Any, path: str, choice: Any) -> bool:
    changed = unchecked(spec, path.split("."), choice)
    return any(problem.path == path for one in known for problem in one.problems(changed))


def _known(spec: Any) -> list[CarriedOut]:
    entry = registered(REFUSALS, tag_of(spec))
    return [] if entry is None else [loaded(entry, entry.value)]


def beyond(spec: Any, carried_out: Collection[str], runner: str, path: str = "spec") -> Iterator[Problem]:
    """Fields that were added after their class's birth and say something that the runner doesn't know.

    A runner carries out every field of birth. It names the later ones that it carries out as well, so a
    field that is added to a class is refused by every runner until that runner has learnt it. A class of
    another package brings the code that carries it out, and its own fields are that code's business.

    Args:
        spec: What is to be run.
        carried_out: Paths of later fields without the leading `spec.`; `recompute` includes what is inside.
        runner: Who can't do it, for the message.
        path: Where the spec stands.
    """
    for where, value, neutral in _unknown(spec, carried_out, path):
        if value != neutral:
            yield _problem(where, value, neutral, runner)


def _unknown(spec: Any, carried_out: Collection[str], path: str) -> Iterator[tuple[str, Any, Any]]:
    """The later fields that a runner does not know: path, value and the only value that it can run."""
    own = class_of(spec).__module__.startswith("mm_config.")
    for attribute in spec_fields(class_of(spec)):
        where, info = f"{path}.{attribute.name}", info_of(attribute)
        value, later = getattr(spec, attribute.name), own and info.neutral is not ABSENT
        if where.partition(".")[2] in carried_out:
            continue
        if later and is_spec(value) and is_spec(info.neutral):
            for inner in spec_fields(class_of(value)):
                inside = f"{where}.{inner.name}"
                if inside.partition(".")[2] not in carried_out:
                    yield inside, getattr(value, inner.name), getattr(info.neutral, inner.name)
        elif later:
            yield where, value, info.neutral
        elif is_spec(value) and not info.by_hash:
            yield from _unknown(value, carried_out, where)


def _problem(path: str, value: Any, neutral: Any, runner: str) -> Problem:
    shown = type(value).__name__ if is_spec(value) else for_person(value)
    return Problem(path, f"is {shown}, which {runner} can't do yet; only {for_person(neutral)} can be run")

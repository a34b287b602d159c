"""What a spec asks for that a runner can't do: nothing that a spec says is ignored in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from mm_config.schema.diff import show_value
from mm_config.schema.errors import Problem
from mm_config.schema.fields import ABSENT, info_of, spec_fields
from mm_config.schema.types import class_of, is_spec


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
    own = class_of(spec).__module__.startswith("mm_config.")
    for attribute in spec_fields(class_of(spec)):
        where, info = f"{path}.{attribute.name}", info_of(attribute)
        value = getattr(spec, attribute.name)
        if where.partition(".")[2] in carried_out:
            continue
        if not own:
            if is_spec(value) and not info.by_hash:
                yield from beyond(value, carried_out, runner, where)
        elif info.neutral is not ABSENT and is_spec(value) and is_spec(info.neutral):
            yield from _changed(value, info.neutral, carried_out, runner, where)
        elif info.neutral is not ABSENT and value != info.neutral:
            yield _problem(where, value, info.neutral, runner)
        elif is_spec(value) and not info.by_hash:
            yield from beyond(value, carried_out, runner, where)


def _changed(
    value: Any, neutral: Any, carried_out: Collection[str], runner: str, path: str
) -> Iterator[Problem]:
    """The fields of a nested spec that differ from its neutral value."""
    for attribute in spec_fields(class_of(value)):
        where, mine = f"{path}.{attribute.name}", getattr(value, attribute.name)
        wanted = getattr(neutral, attribute.name)
        if mine != wanted and where.partition(".")[2] not in carried_out:
            yield _problem(where, mine, wanted, runner)


def _problem(path: str, value: Any, neutral: Any, runner: str) -> Problem:
    shown = type(value).__name__ if is_spec(value) else show_value(value)
    return Problem(path, f"is {shown}, which {runner} can't do yet; only {show_value(neutral)} can be run")

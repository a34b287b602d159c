"""From flags to a spec: every leaf's text is parsed by tyro, every problem is collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mm_config import rules
from mm_config.cli.flags import (
    Flag,
    as_text,
    chosen_in_python,
    flags_of,
    is_settable,
    normalised,
    unknown_flag_message,
)
from mm_config.cli.scan import WORLD_SIZE, Given
from mm_config.schema.errors import Problem, SpecError, prefixed
from mm_config.schema.evolve import replace
from mm_config.schema.fields import spec_fields
from mm_config.schema.ranges import value_problems
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import describe

Rule = Callable[[RootSpec], Iterable[Problem]]
"""What finds problems of a spec."""


def overridden(
    spec: RootSpec,
    given: Sequence[Given],
    problems: Iterable[Problem] = (),
    other_flags: Sequence[str] = (),
    world_size: int | None = None,
    *more: Rule,
) -> RootSpec:
    """A spec with the given fields, checked whole.

    Args:
        spec: The spec whose fields are the defaults.
        given: Flags such as `--spec.optim.lr` with their words.
        problems: What is already known to be wrong with the command line.
        other_flags: The options beside the spec, for suggestions.
        world_size: Number of ranks that will run it, where known.
        more: Further rules that the changed spec is asked.

    Raises:
        SpecError: All problems at once: those passed in, unknown and repeated flags, each leaf's text,
            type and range, and the rules between fields of the spec with all values that are right.
    """
    values, found = parse_fields(spec, given, other_flags)
    changed = replace(spec, values) if values else spec
    wrong = [*problems, *found, *rules.problems(changed, world_size)]
    wrong += [problem for rule in more for problem in rule(changed)]
    if wrong:
        raise SpecError(wrong)
    return changed


def unsaid_ranks(spec: RootSpec) -> Iterator[Problem]:
    """That the number of ranks was not said, where one alone can't carry a spec out."""
    if len(rules.problems(spec, 1)) > len(rules.problems(spec)):
        yield Problem(
            WORLD_SIZE.flag, "is not given, so this is checked for 1 rank; say how many there will be"
        )


def parse_fields(
    spec: RootSpec, given: Sequence[Given], other_flags: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """The value of each given field by its path, and what is wrong with the others."""
    flags = flags_of(spec) if given else {}
    typed: dict[str, str] = {}
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for one in given:
        flag = flags.get(normalised(one.flag))
        if flag is None:
            problems.append(Problem(one.flag, unknown_flag_message(one.flag, flags, other_flags)))
            continue
        path = flag.leaf.path
        if path in typed:
            problems.append(_repeated(path, typed[path], one.flag))
            continue
        typed[path] = one.flag
        try:
            value = _parse(flag, one.words)
        except ValueError as error:
            problems.append(Problem(f"spec.{path}", str(error)))
            continue
        section, _, name = f"spec.{path}".rpartition(".")
        (attribute,) = (field for field in spec_fields(flag.leaf.owner) if field.name == name)
        found = list(prefixed(value_problems(value, flag.leaf.type, attribute), section))
        problems.extend(found)
        if not found:
            values[path] = value
    return values, problems


def _parse(flag: Flag, words: tuple[str, ...]) -> Any:
    kind = flag.leaf.type
    if not is_settable(kind):
        raise ValueError(chosen_in_python(kind))
    if flag.negated:
        if words:
            raise ValueError(f"its `no` form takes no value, got {' '.join(words)!r}")
        return False
    if kind is bool and not words:
        return True
    rule = as_text(kind)
    counts = rule.nargs if isinstance(rule.nargs, tuple) else (rule.nargs,)
    if not words and "*" not in counts:
        raise ValueError(f"needs a value ({rule.metavar})")
    if rule.choices is not None:
        for word in words:
            if word not in rule.choices:
                choices = ", ".join(rule.choices)
                raise ValueError(f"expected one of {choices}, got {word!r}{did_you_mean(word, rule.choices)}")
    wrong = f"expected {describe(kind)}, got {' '.join(words)!r}"
    if "*" not in counts and len(words) not in counts:
        raise ValueError(wrong)
    try:
        return rule.instance_from_str(list(words))
    except ValueError as error:
        raise ValueError(wrong) from error


def _repeated(path: str, first: str, second: str) -> Problem:
    if normalised(first) == normalised(second):
        return Problem(f"spec.{path}", f"{second} is given twice")
    return Problem(f"spec.{path}", f"is given twice, as {first} and as {second}; give one of them")

"""What a user did wrong, as data: one line per problem, with the canonical path of the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

import attrs

_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""What moves a cursor, ends a line, turns the direction of writing or is no character. The joiners that
scripts and pictures need are none of it."""


def escaped(text: str, quoted: Callable[[str], str] = ascii) -> str:
    """One line of text for a terminal: control characters, from a file or a name, are written as escapes."""
    return _CONTROLS.sub(lambda found: quoted(found[0])[1:-1], text)


@attrs.frozen
class Problem:
    """One thing that is wrong, where it is, and what would be right."""

    path: str
    """Canonical path of the field (`spec.optim.lr`), a flag, a file with its line, or empty."""
    message: str
    """What is wrong, what was probably meant, what is allowed."""

    def __str__(self) -> str:
        return escaped(f"{self.path}: {self.message}" if self.path else self.message)


class UserError(ValueError):
    """A mistake of the user's: the command line prints one line per problem and exits with status 2."""

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = (Problem("", problems),)
        elif isinstance(problems, Problem):
            problems = (problems,)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SpecError(UserError):
    """A spec that can't be: a wrong type, a value out of range, rules between fields broken."""


class Failure(RuntimeError):
    """What went wrong and is no mistake of the user's: a line and status 1; empty where others say it."""


def prefixed(problems: Iterable[Problem], prefix: str) -> Iterator[Problem]:
    """The same problems, seen from further up: `lr` under `spec.optim` becomes `spec.optim.lr`."""
    for problem in problems:
        yield Problem(f"{prefix}.{problem.path}" if problem.path else prefix, problem.message)


@contextmanager
def concerning(field: str) -> Generator[None]:
    """Puts the field that names a file before each problem of the file."""
    try:
        yield
    except UserError as error:
        raise UserError(Problem(field, str(problem)) for problem in error.problems) from error


@contextmanager
def gathering(problems: list[Problem]) -> Generator[None]:
    """Adds a mistake to those that were found before, so that what follows is looked at as well."""
    try:
        yield
    except UserError as error:
        problems += error.problems

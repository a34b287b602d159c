"""What a user did wrong, as data: one line per problem, with the canonical path of the field."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import attrs


@attrs.frozen
class Problem:
    """One thing that is wrong, where it is, and what would be right."""

    path: str
    """Canonical path of the field (`spec.optim.lr`), a flag, a file with its line, or empty."""
    message: str
    """What is wrong, what was probably meant, what is allowed."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


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

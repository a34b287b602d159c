"""Problems of a spec at the lines of the files that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.files import Files
from mm_config.importing.readings import Composed
from mm_config.schema.errors import Problem


def placed(
    problems: Iterable[Problem], files: Files, made: Composed, others: Sequence[Problem]
) -> Iterator[Problem]:
    """Problems with the line that they come from, or that of the nearest value beside it.

    Where something else is wrong, a value that no file gives is not blamed: that may be why it is missing.

    Args:
        problems: Their paths begin with `spec.`.
        files: What was read.
        made: The values, and what each comes from.
        others: What was found before.
    """
    origins = {path: fact for path, fact in made.because.items() if isinstance(fact, Fact)}
    for problem in problems:
        path = problem.path.removeprefix("spec.").split(".")
        nearest = max(origins, key=lambda target: _shared(target.split("."), path), default=None)
        shared = 0 if nearest is None else _shared(nearest.split("."), path)
        if others and (nearest is None or shared < len(path)):
            continue
        if nearest is None or not shared:
            names = ", ".join(dict.fromkeys(str(fact.source.file) for fact in files.facts))
            yield Problem(names, f"{problem.path} {problem.message}")
        else:
            fact = origins[nearest]
            yield Problem(fact.place, f"{fact.path}: {problem.path} {problem.message}")


def _shared(one: list[str], other: list[str]) -> int:
    """How many names two paths begin with in common."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)

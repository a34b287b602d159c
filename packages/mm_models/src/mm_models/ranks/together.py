"""What the processes of one run do together: they hear each other, and fail together.

Whatever passes between ranks here is JSON in a CPU tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import attrs
import torch
import torch.distributed as dist

from mm_config.runs import Run
from mm_config.schema import Problem, UserError
from mm_models.collectives import gather_json
from mm_models.ranks.watching import Watch, naming

T = TypeVar("T")


@attrs.frozen
class Ranks:
    """This process among those of the run, and what they do together; every rank makes the same calls."""

    rank: int
    """This process's place, from 0."""
    world_size: int
    """Processes of the run, on all machines."""
    grouped: bool
    """Whether there is a process group; without one a single process works alone."""
    watch: Watch | None = None
    """What finds out whom the others wait for; None for one process, and for a group of the caller's."""
    group: dist.ProcessGroup | None = None
    """The group by which they speak; None for the default one, which is the main thread's."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and speaks."""
        return self.rank == 0

    def reached(self, step: int) -> None:
        """Says, where somebody listens, how many steps are done."""
        if self.watch is not None:
            self.watch.step = step

    def naming_who_is_missing(self, run: Run | None = None) -> AbstractContextManager[None]:
        """Makes a wait for another rank that fails in a block an error that names the rank, see `naming`."""
        return nullcontext() if self.watch is None else naming(self.watch, run)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's JSON value, in the order of ranks, on every rank."""
        return [value] if self.world_size == 1 else gather_json(value, self.group)

    def share(self, value: Any) -> Any:
        """The first rank's JSON value, on every rank."""
        return self.gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.largest(int(flag)))

    def largest(self, number: int) -> int:
        """The largest of every rank's number."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.group)
        return int(numbers)

    def together(self, work: Callable[[], T], catching: type[Exception] = Exception) -> T:
        """Does work on every rank; when it fails on one, it fails on all, with all problems.

        Args:
            work: Any; where ranks wait for each other in it, only what fails on all of them is caught.
            catching: Errors of others are raised at once on their rank alone.

        Raises:
            UserError: The problems of every rank, each once, see `merged`. The rank of an unexpected error
                raises that error itself.
        """
        if self.world_size == 1:
            return work()
        outcome: T | None = None
        failure: Exception | None = None
        try:
            outcome = work()
        except catching as error:
            failure = error
        if not self.any(failure is not None):
            return outcome  # type: ignore[return-value]
        found = self.gather(_problems_of(failure, self.rank))
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        raise UserError(merged(found))

    def on_first(self, work: Callable[[], Any]) -> Any:
        """Does work on the first rank alone and gives its JSON result, or its error, to every rank."""
        return self.share(self.together(lambda: work() if self.is_first else None))


def merged(found: Iterable[Iterable[tuple[str, str]]]) -> list[Problem]:
    """Every rank's problems, given as path and message, each once.

    Ranks may word one problem differently, with counts of their own: what an earlier rank has named by its
    path is not said again.
    """
    said: list[Problem] = []
    for problems in found:
        named = {problem.path for problem in said if problem.path}
        said += [Problem(path, message) for path, message in problems if path not in named]
    return list(dict.fromkeys(said))


def _problems_of(failure: Exception | None, rank: int) -> list[tuple[str, str]]:
    if failure is None:
        return []
    if isinstance(failure, UserError):
        return [(problem.path, problem.message) for problem in failure.problems]
    return [("", f"rank {rank} stopped: {type(failure).__name__}: {failure}")]

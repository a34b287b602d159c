"""What a person sees while a run works: live bars on a terminal, plain lines elsewhere.

Only the first rank speaks (environment variable RANK, set by torchrun).
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from mm_config.schema.errors import Problem, UserError, escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress


@cache
def console() -> Console:
    """The one console on stdout, so that notes appear above a live bar and not inside it."""
    from rich.console import Console

    return Console(highlight=False)


def is_main_rank() -> bool:
    """Whether this process is the one that speaks; one whose rank is no number speaks for itself."""
    rank = os.environ.get("RANK", "0")
    return rank == "0" or not rank.isdecimal()


def set_by_torchrun(variable: str, default: int, at_least: int = 0) -> int:
    """A number in the environment: RANK, LOCAL_RANK or WORLD_SIZE.

    Raises:
        UserError: It is no such number.
    """
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or int(text) < at_least:
        message = f"expected a whole number of at least {at_least}, got {text!r}; torchrun sets it"
        raise UserError(Problem(variable, message))
    return int(text)


def is_live() -> bool:
    """Whether stdout is a terminal that can redraw lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """Prints one note."""
    if not is_main_rank():
        return
    if is_live():
        with _unless_the_terminal_is_gone():
            console().print(escaped(text), markup=False, soft_wrap=True)
    else:
        print_lines([text])


@contextmanager
def _unless_the_terminal_is_gone() -> Generator[None]:
    """Lets output go nowhere from the time on when its terminal was closed: a run does not end of it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def aside(*notes: str) -> None:
    """Prints notes on stderr, beside what is printed for a program."""
    if is_main_rank():
        print_lines(notes, sys.stderr)


def print_lines(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Prints lines; of what is inside one, control characters become escapes, an end of a line too."""
    if whole := list(map(escaped, lines)):
        with _unless_the_terminal_is_gone():
            print("\n".join(whole), file=file, flush=True)


def print_json(content: object) -> None:
    """Prints data as JSON."""
    print_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Prints the text of a file in a language that has JSON's escapes, which control characters become."""
    print("\n".join(escaped(line, json.dumps) for line in text.split("\n")), end="", flush=True)


@contextmanager
def passing_over() -> Generator[None]:
    """Says what is wrong with one of many, which stops none of the others."""
    try:
        yield
    except UserError as error:
        for problem in error.problems:
            aside(f"passed over: {problem}")


def table(title: str, rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Prints a table: boxed on a terminal, aligned text elsewhere.

    Args:
        title: Printed above the rows.
        rows: Equally long rows; every cell is shown by `str`, whole.
        header: Names of the columns, if any.
    """
    if not is_main_rank():
        return
    cells, header = [[escaped(str(cell)) for cell in row] for row in rows], list(map(escaped, header))
    if not is_live():
        print_lines([title, *_aligned([header, *cells] if header else cells)])
        return
    from rich.table import Table
    from rich.text import Text

    boxed = Table(title=Text(escaped(title)), title_justify="left", show_header=bool(header))
    for index in range(len(cells[0]) if cells else len(header)):
        boxed.add_column(Text(header[index]) if header else "", overflow="fold")
    for row in cells:
        boxed.add_row(*map(Text, row))
    console().print(boxed)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@attrs.define
class Progress:
    """Long work under way; made by `progress`."""

    description: str
    """What is done."""
    total: int
    """Units of the whole work."""
    unit: str
    """What is counted."""
    every: int
    """Units between two lines where nothing can be redrawn."""
    completed: int
    """Units that are done."""
    bar: RichProgress | None
    """The live bar; None where nothing can be redrawn."""
    started_at: float = attrs.field(factory=time.monotonic)
    """When it began, in seconds of a monotonic clock."""
    started_from: int = attrs.field(init=False)
    """Units that were done before it began."""

    def __attrs_post_init__(self) -> None:
        self.started_from = self.completed
        if self.bar is not None:
            named = escaped(self.description)
            self.bar.add_task(named, total=self.total, completed=self.completed, metrics="")

    def advance(self, count: int = 1, **metrics: float | str) -> None:
        """Counts finished work and shows the latest metrics.

        Args:
            count: Units finished since the last call.
            metrics: Numbers are shown with their name, strings as they are (`rate="210 samples/s"`).
        """
        before = self.completed
        self.completed += count
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], advance=count, metrics="  ".join(_in_texts(metrics)))
        elif is_main_rank() and (
            before // self.every != self.completed // self.every or before < self.total <= self.completed
        ):
            print_lines(["  ".join([self.description, self._count(), *_in_texts(metrics), self._time()])])

    def _count(self) -> str:
        return f"{self.unit} {self.completed}/{self.total}"

    def _time(self) -> str:
        elapsed = time.monotonic() - self.started_at
        if self.completed >= self.total:
            return f"{_clock(elapsed)} in all"
        done = self.completed - self.started_from
        return f"{_clock(elapsed / done * (self.total - self.completed))} left"


@contextmanager
def progress(
    description: str, total: int, unit: str = "step", every: int = 10, completed: int = 0
) -> Generator[Progress]:
    """Shows long work: a live bar with the time left on a terminal, a line every `every` units elsewhere.

    Args:
        description: What is being done (`train tiny_high`).
        total: Units at the end.
        unit: What is counted.
        every: Units between plain lines; the last unit always prints one.
        completed: Units finished before now, by an earlier process.
    """
    if not (is_main_rank() and is_live()):
        yield Progress(description, total, unit, every, completed, None)
        return
    with _live_bar(unit) as bar:
        yield Progress(description, total, unit, every, completed, bar)


def _live_bar(unit: str) -> RichProgress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn(f"{unit} {{task.completed}}/{{task.total}}", markup=False),
        TextColumn("{task.fields[metrics]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=console(), refresh_per_second=4)


def _in_texts(metrics: dict[str, float | str]) -> list[str]:
    texts = (value if isinstance(value, str) else f"{name} {value:.4g}" for name, value in metrics.items())
    return list(map(escaped, texts))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

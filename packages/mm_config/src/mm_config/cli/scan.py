"""Splits a command line into words, options that stand beside the spec, and fields of the spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean
from mm_config.schema.types import literal


@attrs.frozen
class Option:
    """A flag that stands beside the spec."""

    flag: str
    """As shown, such as `--runs-dir`."""
    help: str
    """What it does, one sentence."""
    metavar: str | None = None
    """What its value is; None for a switch."""
    choices: tuple[str, ...] = ()
    """The values it accepts; empty for any."""
    repeatable: bool = False
    """Whether it may be given several times."""
    read: Callable[[str], Any] = str
    """Makes the value of what was typed, or raises a UserError that says what is wrong with it."""
    may_be_empty: bool = False
    """Whether an empty value is one."""
    missing: str = ""
    """What to say where it is not given; empty where it may be left out."""


RUN = "RUN"
"""What the value of an option is that names a run."""
HELP = Option("--help", "Show this page.")
RUNS_DIR = Option("--runs-dir", "Folder of all run folders and of their index (default: runs).", "DIR")
JSON = Option("--json", "Print JSON.")
YES = Option("--yes", "rm: remove what is listed, without asking.")
FORCE = Option("--force", "rm: remove runs that others were made of, too.")


@attrs.frozen
class Given:
    """A flag of the spec as it was typed."""

    flag: str
    """With its dashes, without `=value`."""
    words: tuple[str, ...]
    """What follows it, up to the next flag."""


@attrs.frozen
class CommandLine:
    """A command line in its parts; nothing is looked up in a spec yet."""

    words: tuple[str, ...]
    """What belongs to no flag, in order."""
    options: Mapping[str, tuple[Any, ...]]
    """Values of the options that were given, as they were read; a switch has the value `""`."""
    fields: tuple[Given, ...]
    """All other flags, in order."""
    problems: tuple[Problem, ...]
    """Options that are missing, repeated, without a value or with one that can't be read."""
    flags: tuple[str, ...]
    """All options that can be given."""
    argv: tuple[str, ...]
    """The line as it was typed."""

    def has(self, option: Option) -> bool:
        """Whether an option was given, with a value that can be read."""
        return option.flag in self.options

    def value(self, option: Option, default: Any = None) -> Any:
        """The value of an option, or the default where it was not given."""
        return self.options[option.flag][-1] if self.has(option) else default

    def values(self, option: Option) -> tuple[Any, ...]:
        """All values of an option that may be repeated."""
        return self.options.get(option.flag, ())

    def unknown_flags(self) -> Iterator[Problem]:
        """What is wrong with flags of a spec where none is changed."""
        for given in self.fields:
            if given.flag.startswith("--spec."):
                yield Problem(given.flag, "no field of a spec can be changed here")
            else:
                yield Problem(given.flag, f"unknown flag{did_you_mean(given.flag, self.flags)}")


def scan(argv: Sequence[str], options: Iterable[Option]) -> CommandLine:
    """Splits a command line.

    An option takes exactly one word, or none where it is a switch. Any other flag takes all words up
    to the next flag, because only the spec knows how many it needs. A flag starts with two dashes and
    a letter, so negative numbers are values; a value that looks like a flag is given as
    `--flag=value`.

    Args:
        argv: The words after the program's name.
        options: The flags that stand beside the spec; `--help` is always one of them.
    """
    known = {_normalised(option.flag): option for option in (*options, HELP)}
    words: list[str] = []
    values: dict[str, list[Any]] = {}
    fields: list[Given] = []
    problems: list[Problem] = []
    rest = list(argv)
    while rest:
        word = "--help" if rest[0] == "-h" else rest[0]
        del rest[0]
        if not (is_flag(word) or word in known):  # An option may have one dash, such as `-n`.
            words.append(word)
            continue
        flag, equals, value = word.partition("=")
        following = next((at for at, later in enumerate(rest) if is_flag(later) or later in known), len(rest))
        option = known.get(_normalised(flag))
        if option is None:
            taken = [value] if equals else rest[:following]
            fields.append(Given(flag, tuple(taken)))
            del rest[: 0 if equals else following]
            continue
        given = values.setdefault(option.flag, [])
        if given and not option.repeatable:
            problems.append(Problem(option.flag, "is given twice"))
        if option.metavar is None:
            given.append("")
            if equals:
                problems.append(Problem(option.flag, f"takes no value, got {value!r}"))
            continue
        text = value if equals else rest.pop(0) if following else None
        if text or (text is not None and option.may_be_empty):
            try:
                given.append(_read(option, text))
            except UserError as error:
                problems.extend(Problem(option.flag, problem.message) for problem in error.problems)
        else:
            problems.append(Problem(option.flag, f"needs a value ({option.metavar})"))
    problems.extend(
        Problem(option.flag, f"is missing; {option.missing}")
        for option in known.values()
        if option.missing and option.flag not in values
    )
    return CommandLine(
        words=tuple(words),
        options={flag: tuple(given) for flag, given in values.items() if given},
        fields=tuple(fields),
        problems=tuple(problems),
        flags=tuple(option.flag for option in known.values()),
        argv=tuple(argv),
    )


def is_flag(word: str) -> bool:
    """Whether a word is a flag and not a value."""
    return word == "-h" or re.match(r"--[A-Za-z]", word) is not None


def html_file(text: str) -> Path:
    """The name of a page that can be written, for `Option.read`.

    Raises:
        UserError: It ends otherwise, or its folder does not exist.
    """
    path = Path(text)
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise UserError(f"expected the name of a file that ends in .html, got {text!r}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"the folder {str(path.parent)!r} does not exist")
    return path


def whole_number(text: str, least: int = 1) -> int:
    """The whole number that an option was given.

    Raises:
        UserError: It is none, is less than the least, or has more digits than a 64-bit number.
    """
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) < least:
        raise UserError(f"expected a whole number of at least {least}, got {literal(text)}")
    return int(text)


WORLD_SIZE = Option(
    "--world-size", "Ranks that a plan or a dry run is for (default: 1).", "N", read=whole_number
)


def _read(option: Option, text: str) -> Any:
    if option.choices and text not in option.choices:
        choices = ", ".join(option.choices)
        raise UserError(f"expected one of {choices}, got {text!r}{did_you_mean(text, option.choices)}")
    return option.read(text)


def _normalised(flag: str) -> str:
    return flag.replace("_", "-")

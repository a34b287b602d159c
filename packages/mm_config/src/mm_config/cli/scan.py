"""Splits a command line into words, options that stand beside the spec, and fields of the spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean


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


HELP = Option("--help", "Show this page.")
RUNS_DIR = Option("--runs-dir", "Folder of all run folders and of their index (default: runs).", "DIR")
JSON = Option("--json", "Print JSON.")


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
    options: Mapping[str, tuple[str, ...]]
    """Values of the options that were given; a switch has the value `""`."""
    fields: tuple[Given, ...]
    """All other flags, in order."""
    problems: tuple[Problem, ...]
    """Options without a value, repeated or with a value that is no choice."""

    def has(self, option: Option) -> bool:
        """Whether an option was given."""
        return option.flag in self.options

    def value(self, option: Option) -> str | None:
        """The value of an option, or None where it was not given."""
        return self.options[option.flag][-1] if self.has(option) else None


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
    known = {_normalised(option.flag): option for option in (HELP, *options)}
    words: list[str] = []
    values: dict[str, list[str]] = {}
    fields: list[Given] = []
    problems: list[Problem] = []
    rest = list(argv)
    while rest:
        word = "--help" if rest[0] == "-h" else rest[0]
        del rest[0]
        if not is_flag(word):
            words.append(word)
            continue
        flag, equals, value = word.partition("=")
        following = next((index for index, word in enumerate(rest) if is_flag(word)), len(rest))
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
        elif text := value if equals else rest.pop(0) if following else "":
            given.append(text)
            problems.extend(_choice_problem(option, text))
        else:
            problems.append(Problem(option.flag, f"needs a value ({option.metavar})"))
    return CommandLine(
        words=tuple(words),
        options={flag: tuple(given) for flag, given in values.items() if given},
        fields=tuple(fields),
        problems=tuple(problems),
    )


def is_flag(word: str) -> bool:
    """Whether a word is a flag and not a value."""
    return word == "-h" or re.match(r"--[A-Za-z]", word) is not None


def whole_number(option: Option, text: str, least: int = 1) -> int:
    """The whole number that an option was given.

    Raises:
        UserError: It is none, is less than the least, or has more digits than a 64-bit number.
    """
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) < least:
        given = repr(text) if len(text) <= 40 else f"{text[:20]!r}... ({len(text)} characters)"
        raise UserError(Problem(option.flag, f"expected a whole number of at least {least}, got {given}"))
    return int(text)


def _choice_problem(option: Option, value: str) -> Iterable[Problem]:
    if option.choices and value not in option.choices:
        choices = ", ".join(option.choices)
        near = did_you_mean(value, option.choices)
        yield Problem(option.flag, f"expected one of {choices}, got {value!r}{near}")


def _normalised(flag: str) -> str:
    return flag.replace("_", "-")

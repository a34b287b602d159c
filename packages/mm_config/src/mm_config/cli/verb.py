"""A verb of `mm`: its page of help, what it does with a command line, and how packages register it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Literal

import attrs

from mm_config.cli.page import (
    BLANK,
    Line,
    example_lines,
    flag_line,
    heading,
    option_lines,
    paragraph,
    print_page,
)
from mm_config.cli.scan import HELP, CommandLine, Option, scan
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.installed import loaded, registered, registered_names
from mm_config.schema.suggestions import did_you_mean

GROUP = "mm.verbs"
"""Entry points, each a `Verb`."""
MORE = "..."
"""Behind the name of a word: any number of further ones."""


@attrs.frozen
class Action:
    """What a verb's first word can be, where that is not a target."""

    words: tuple[str, ...] = ()
    """Names of the words after it."""
    refuses: tuple[Option, ...] = ()
    """Options of the verb that it does not take."""


@attrs.frozen
class Usage:
    """What a verb's --help says, and with it what the command line may hold."""

    line: str
    """How it is called."""
    summary: str
    """What it does, in one sentence."""
    about: str
    """What it does, in paragraphs."""
    options: tuple[Option, ...]
    """The options that it takes beside fields of the spec."""
    examples: tuple[tuple[str, str], ...]
    """Commands, each with what it does."""
    words: tuple[str, ...] = ("TARGET",)
    """Names of its words; one in brackets may be left out, and `...` after one stands for more of them."""
    takes: Literal["targets", "runs", "files"] = "targets"
    """What its words name, those after an action. Fields of the last target's spec can be changed, and a
    target can be a run."""
    actions: Mapping[str, Action] = attrs.field(factory=dict[str, Action])
    """What its first word can be, by that word."""
    default_action: str = ""
    """The action where there is no word; empty where one must be named."""


@attrs.frozen
class Verb:
    """What an entry point of `mm.verbs` names."""

    usage: Usage
    """Its page of help, which says what it takes."""
    carry_out: Callable[[CommandLine], int]
    """Does the work and returns the exit status: 0 done, 1 a negative answer. The first word is the action
    of a verb that has some. Mistakes in the options are left to `read_targets` where there are targets, so
    that those in fields are told with them; everything else of the line has been checked."""
    problems: Callable[[CommandLine], Iterable[Problem]] = lambda line: ()
    """What else is wrong with the words and with the options that can be read."""

    def run(self, argv: Sequence[str]) -> int:
        """Carries out a command line, or prints the page of help that it asks for.

        Raises:
            UserError: All that is wrong with the command line.
        """
        line = scan(argv, self.usage.options)
        if line.has(HELP):
            print_usage(self.usage)
            return 0
        if self.usage.default_action and not line.words:
            line = attrs.evolve(line, words=(self.usage.default_action,))
        wrong = [*_misused(self.usage, line)] or [*self.problems(line)]
        if wrong or (self.usage.takes != "targets" and (line.problems or line.fields)):
            unknown = line.unknown_flags() if self.usage.takes != "targets" else ()
            raise UserError([*line.problems, *unknown, *wrong])
        return self.carry_out(line)


@attrs.frozen
class VerbGroup:
    """What an entry point of `mm.verbs` names where its first word is a verb of a group of their own."""

    name: str
    """Its name, behind `mm`."""
    group: str
    """Entry points, each a `Verb`."""
    usage: Usage
    """Its page of help, which lists the verbs."""

    def run(self, argv: Sequence[str]) -> int:
        """Carries out a command line, or prints the page of help.

        Raises:
            UserError: There is no such verb, or all that is wrong with its command line.
        """
        if not argv or argv[0] in (HELP.flag, "-h"):
            lists = verb_lines(self.group, f"mm {self.name}")
            print_page([*_head(self.usage), BLANK, *lists, *example_lines(self.usage.examples)])
            return 0
        return self.verb(argv[0]).run(argv[1:])

    def verb(self, word: str) -> Verb:
        """The verb that a word names. Raises UserError where none is."""
        verb = load_verb(verb_named(word, self.group, f"mm {self.name}"), f"mm {self.name}")
        assert isinstance(verb, Verb)
        return verb


def print_usage(usage: Usage) -> None:
    """Prints a verb's page."""
    print_page(
        [
            *_head(usage),
            *option_lines("options", (*usage.options, HELP)),
            *example_lines(usage.examples),
        ]
    )


def _head(usage: Usage) -> Iterator[Line]:
    yield from paragraph(f"usage: {usage.line}", hanging=7)
    for part in usage.about.split("\n\n"):
        yield from (BLANK, *paragraph(part))


def verb_lines(group: str = GROUP, before: str = "mm") -> Iterator[Line]:
    """The verbs of a group, each with what it does."""
    yield heading("verbs", f"{before} VERB --help tells more")
    names = verbs(group)
    width = max(map(len, names), default=0)
    for name in names:
        first, *others = paragraph(_summary(name, group, before), indent=width + 4)
        yield flag_line([name.ljust(width)], "", first[0][0].strip())
        yield from others


def _summary(name: str, group: str, before: str) -> str:
    try:
        return load_verb(verb_named(name, group, before), before).usage.summary
    except UserError as error:
        return str(error)


def _misused(usage: Usage, line: CommandLine) -> Iterator[Problem]:
    """What is wrong with the words, and with the options of their action."""
    names, action = usage.words, Action()
    if usage.actions:
        first = line.words[0] if line.words else ""
        if first not in usage.actions:
            *others, last = usage.actions
            expected = f"{', '.join(others)} or {last}" if others else last
            given = f"{first!r}{did_you_mean(first, usage.actions)}" if first else "none"
            yield Problem("", f"expected {expected}, got {given}")
            return
        action = usage.actions[first]
        names = (first, *action.words)
    for option in action.refuses:
        if line.has(option):
            yield Problem(option.flag, f"is no option of {names[0]}")
    least = sum(1 for name in names if name != MORE and not name.startswith("["))
    most = len(names) if MORE not in names else len(line.words)
    if not least <= len(line.words) <= max(most, least):
        order = ""
        if line.fields and len(line.words) < least and usage.takes == "targets":
            order = "; targets come before --spec flags"
        got = shlex.join(line.words) or "none"
        yield Problem("", f"expected {' '.join(names)}, got {got}{order} (usage: {usage.line})")


def verbs(group: str = GROUP) -> list[str]:
    """The names of the registered verbs; none is imported."""
    return registered_names(group)


def verb_named(name: str, group: str = GROUP, before: str = "mm") -> EntryPoint:
    """A registered verb.

    Raises:
        UserError: There is none of this name, the nearest and all names are told; or more than one.
    """
    if (entry := registered(group, name)) is None:
        known = verbs(group)
        raise UserError(
            f"{name!r} is no verb of {before}{did_you_mean(name, known)}; verbs: {', '.join(known)}"
        )
    return entry


def load_verb(entry: EntryPoint, before: str = "mm") -> Verb | VerbGroup:
    """Imports a verb.

    Raises:
        UserError: A library that it needs is not installed, or the entry point names something else.
    """
    verb = loaded(entry, f"{before} {entry.name}")
    if not isinstance(verb, Verb | VerbGroup):
        raise UserError(f"{before} {entry.name} can't be loaded: {entry.value} is no Verb")
    return verb

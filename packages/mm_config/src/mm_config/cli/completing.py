"""What can stand at the cursor of an `mm` command line: verbs, flags, their values, targets and fields."""

from __future__ import annotations

import importlib.util
import itertools
import pkgutil
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from mm_config.cli.flags import Flag, flags_of, is_settable, normalised
from mm_config.cli.scan import HELP, RUN, CommandLine, Option, is_flag, scan
from mm_config.cli.sections import sections
from mm_config.cli.targets import resolve, runs_dir_of
from mm_config.cli.values import MARK, brief, for_shell, mark
from mm_config.cli.verb import Usage, VerbGroup, load_verb, verb_named, verbs
from mm_config.options.locations import Locations
from mm_config.options.run_options import RunOptions
from mm_config.rules.carried_out import NotCarriedOut, not_carried_out
from mm_config.schema.evolve import ROOT
from mm_config.schema.root import RootSpec
from mm_config.schema.types import choices_of

TARGET_FILES = (".py", ".json", ".yaml", ".yml", ".mp4")
RUN_FOLDER = re.compile(r"\d{8}-([0-9a-f]{12})-\d+")


@attrs.frozen
class Candidate:
    """A word that can stand at the cursor; one that ends in `/`, `.` or `=` goes on."""

    text: str
    """The whole word."""
    about: str = ""
    """What it means, on one line, where that can be said."""


def candidates(words: Sequence[str]) -> list[Candidate]:
    """What the last word can become.

    Args:
        words: The words after `mm`; the last is being typed and may be empty.

    Returns:
        Whole words that start with it; none where the names of files are as good as anything.

    Raises:
        UserError: The verb or its target is a mistake.
    """
    *before, typed = words
    if before:
        name, *rest = before
        verb = load_verb(verb_named(name))
        if isinstance(verb, VerbGroup):
            if not rest:
                return [one for one in map(Candidate, verbs(verb.group)) if one.text.startswith(typed)]
            verb = verb.verb(rest.pop(0))
        found = _after_verb(verb.usage, rest, typed)
    else:
        flags = (HELP.flag, "--version") if typed.startswith("-") else ()
        found = map(Candidate, (*verbs(), *flags))
    return [one for one in dict.fromkeys(found) if one.text.startswith(typed)]


def _after_verb(usage: Usage, before: Sequence[str], typed: str) -> Iterator[Candidate]:
    line = scan(before, usage.options)
    flag, equals, _ = typed.partition("=")
    if equals and is_flag(typed):
        for one in _values(usage, line, flag):
            yield attrs.evolve(one, text=f"{flag}={one.text}")
    elif typed.startswith("-"):
        yield from _flags(usage, line, typed)
    elif (open_flag := _open_flag(usage, before)) is not None:
        yield from _values(usage, line, open_flag)
    elif usage.actions and not line.words:
        yield from map(Candidate, usage.actions)
    elif usage.takes != "files":
        yield from _runs(runs_dir_of(line), typed)
        if usage.takes == "targets":
            yield from _paths(typed)
            yield from _modules(typed)


def _open_flag(usage: Usage, before: Sequence[str]) -> str | None:
    """The flag whose value is being typed; a field of the spec takes all words up to the next flag."""
    last = max((index for index, word in enumerate(before) if is_flag(word)), default=None)
    if last is None or "=" in before[last]:
        return None
    option = _option(usage, before[last])
    if option is None or (option.metavar and last == len(before) - 1):
        return before[last]
    return None


def _option(usage: Usage, flag: str) -> Option | None:
    return next((one for one in (*usage.options, HELP) if normalised(one.flag) == normalised(flag)), None)


def _flags(usage: Usage, line: CommandLine, typed: str) -> Iterator[Candidate]:
    for option in (*usage.options, HELP):
        if option.repeatable or not line.has(option):
            yield Candidate(option.flag, option.help)
    if usage.takes != "targets" or not line.words:
        return
    if not typed.startswith("--spec"):
        yield Candidate("--spec.", "A field of the spec.")
        return
    spec, inside = _spec(line), normalised(typed)
    groups = [f"{section.path}." for section in sections(spec) if section.by_hash]
    hidden = tuple(group for group in groups if not inside.startswith(group))
    given = {normalised(field.flag) for field in line.fields}
    no_forms = inside.rpartition(".")[2].startswith("no")
    offered = {
        name: flag
        for name, flag in flags_of(spec).items()
        if is_settable(flag.leaf.type) and (no_forms or not flag.negated)
    }
    for group in hidden:
        yield Candidate(_spelt(group, typed), "Fields of the training whose outcome is used.")
    refused = not_carried_out(spec)
    for name, flag in offered.items():
        if name not in given and not name.startswith(hidden):
            yield Candidate(_spelt(name, typed), _about(flag, refused))


def _spelt(name: str, typed: str) -> str:
    """A flag with dashes where those are typed, which mean the same as underscores."""
    return f"--{name.replace('_', '-') if '-' in typed[2:] else name}"


def _about(flag: Flag, refused: NotCarriedOut) -> str:
    path, stands_for = f"{ROOT}.{flag.leaf.path}", f"{flag.leaf.path}: " if flag.alias else ""
    only_refused = flag.leaf.type is bool and (not flag.negated) in refused.choices.get(path, ())
    note = MARK if only_refused else mark(path, refused.fields)
    return " ".join(f"{stands_for}{flag.leaf.help} (default: {brief(flag.leaf.value)}) {note}".split())


def _values(usage: Usage, line: CommandLine, flag: str) -> Iterator[Candidate]:
    option = _option(usage, flag)
    if option is not None:
        yield from map(Candidate, option.choices)
        if option.metavar == RUN:
            yield from _runs(runs_dir_of(line), "")
    elif line.words:
        spec = _spec(line)
        found = flags_of(spec).get(normalised(flag))
        if found is not None and not found.negated:
            path = f"{ROOT}.{found.leaf.path}"
            refused = not_carried_out(spec).choices.get(path, ())
            for choice in _choices(found.leaf.type):
                yield Candidate(for_shell(choice), MARK if choice in refused else "")


def _choices(kind: Any) -> Iterator[Any]:
    """The values of a type that can be listed; of a list, those of its items."""
    items = typing.get_args(kind) if typing.get_origin(kind) is tuple else (kind,)
    return itertools.chain.from_iterable(map(choices_of, items))


def _spec(line: CommandLine) -> RootSpec:
    """The spec that fields on the command line change: the last target's."""
    return resolve(line.words[-1], RunOptions(runs_dir=runs_dir_of(line), locations=Locations()))


def _runs(runs_dir: Path, typed: str) -> Iterator[Candidate]:
    """Run ids, and the hashes they carry where one is being typed; the folders' names alone are read."""
    found = (folder for folder in runs_dir.glob("[!.]*/*") if RUN_FOLDER.fullmatch(folder.name))
    for folder in sorted(found, key=lambda folder: folder.name, reverse=True):
        run_id = f"{folder.parent.name}/{folder.name}"
        yield Candidate(run_id, "a run")
        if typed:
            yield Candidate(folder.name, "a run")
            yield Candidate(folder.name.split("-")[1], f"the spec of {run_id}")


def _paths(typed: str) -> Iterator[Candidate]:
    """Experiments, saved specs, videos and the folders on the way to them."""
    head, slash, name = typed.rpartition("/")
    folder = Path(head + slash).expanduser()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(("_", ".")) and not name.startswith(path.name[0]):
            continue
        text = f"{head}{slash}{path.name}"
        if path.suffix in TARGET_FILES and path.is_file():
            yield Candidate(text)
        elif path.is_dir() and text == "experiments":
            yield from _paths("experiments/")
        elif path.is_dir():
            yield Candidate(f"{text}/")


def _modules(typed: str) -> Iterator[Candidate]:
    package = importlib.util.find_spec("experiments") if typed.startswith("experiments.") else None
    folders: Iterable[str] = (package.submodule_search_locations or ()) if package else ()
    for module in pkgutil.iter_modules(list(folders)):
        yield Candidate(f"experiments.{module.name}")

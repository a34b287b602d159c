"""The launch command's arguments as flags with their values."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from mm_config.importing.facts import Fact, Source
from mm_config.importing.parsers.shell_values import Field, unknown_of
from mm_config.importing.parsers.text import Mistakes, Note
from mm_config.stored.parsing import shown_key

LAUNCHERS = re.compile(r"torchrun|python[0-9.]*|accelerate|deepspeed|msrun")
_LAUNCHING_MODULES = ("torch.distributed.run", "torch.distributed.launch")
_FLAG = re.compile(r"--?[A-Za-z][^=]*")
_OWN_TREE = re.compile(r"(?:\$\(|`)\s*cd\s.*\bpwd\s*(?:\)|`)$", re.DOTALL)
_EXPANDED_BY_BASH = re.compile(r"^~|[*?\[]|\{[^{}]*(?:,|\.\.)[^{}]*\}")


@attrs.frozen
class Launch:
    """What is launched, and with what."""

    program: str
    """The launcher, such as `torchrun`."""
    entry: str
    """The Python file or module that it starts."""
    line: int
    """Where the entry stands."""
    flags: tuple[Fact, ...]
    """What stands behind it."""
    notes: tuple[Note, ...]
    """What was read over."""
    reached: dict[str, tuple[str, ...]]
    """The flags whose values come from a variable, by its name."""


def read_launch(fields: list[Field], source: Source, mistakes: Mistakes) -> Launch | None:
    """The flags of a launch command.

    Args:
        fields: The program and its arguments.
        source: The script, with the kind "shell flag".
        mistakes: Takes what is wrong with the arguments.

    Returns:
        None where mistakes were found.
    """
    line = fields[0].line
    if _reported(fields, mistakes):
        return None
    program, fields = _program(fields)
    at = next((i for i in range(len(fields)) if _is_entry(fields, i)), None)
    if at is None:
        mistakes.add(line, f"{program} launches neither a .py file nor a module (-m)")
        return None
    module = fields[at - 1].text if at else ""
    launcher = fields[: at - 1] if module in ("-m", "--module") else fields[:at]
    notes: list[Note] = []
    flags: list[Fact] = []
    reached: dict[str, tuple[str, ...]] = {}
    for arguments in (launcher, fields[at + 1 :]):
        for flag, values in _grouped(arguments, mistakes):
            name, equals, text = flag.text.partition("=")
            texts = ((text,) if equals else ()) + tuple(value.text for value in values)
            value = True if not texts else texts[0] if len(texts) == 1 else texts
            flags.append(Fact(source, name, value, flag.line))
            owners = {piece.owner for value in values for piece in value.pieces}
            owners -= {piece.owner for piece in flag.pieces}
            for owner in filter(None, owners):
                reached[owner] = (*reached.get(owner, ()), name)
                if len(values) > 1:
                    text = f"{name} gets {len(values)} words: {owner} holds spaces and is split at them"
                    notes.append(Note(flag.line, text))
    entry = fields[at].text if unknown_of(fields[at].pieces) is None else fields[at].text.rpartition("/")[2]
    return Launch(program, entry, fields[at].line, tuple(flags), tuple(notes), reached)


def _program(fields: list[Field]) -> tuple[str, list[Field]]:
    texts = [field.text for field in fields[:3]]
    if (
        texts[0].startswith("python")
        and texts[1:2] == ["-m"]
        and texts[2:]
        and texts[2] in _LAUNCHING_MODULES
    ):
        return " ".join(texts), fields[3:]
    if texts[0] == "accelerate" and texts[1:2] == ["launch"]:
        return "accelerate launch", fields[2:]
    return texts[0], fields[1:]


def _is_entry(fields: list[Field], at: int) -> bool:
    before = fields[at - 1].text if at else ""
    return before in ("-m", "--module") or (fields[at].text.endswith(".py") and fields[at].text[0] != "-")


def _grouped(fields: list[Field], mistakes: Mistakes) -> Iterator[tuple[Field, list[Field]]]:
    """Each flag with the arguments that follow it."""
    flag, values = None, list[Field]()
    for field in fields:
        if _FLAG.match(field.text):
            if flag is not None:
                yield flag, values
            flag, values = field, []
        elif field.text == "--":
            mistakes.add(field.line, "-- ends the flags, which no script here needs")
        elif flag is None:
            mistakes.add(field.line, f"the argument {shown_key(field.text)} belongs to no flag")
        else:
            values.append(field)
    if flag is not None:
        yield flag, values


def _reported(fields: list[Field], mistakes: Mistakes) -> bool:
    """Whether arguments are not what they look like, which is then reported, each reason once."""
    flag, told = "", set[str]()
    entry = next((field for field in fields if field.text.endswith(".py")), None)
    for field in fields:
        if _FLAG.match(field.text):
            flag = f"{shown_key(field.text)}: "
        unknown = unknown_of(field.pieces)
        why, line = (unknown.unknown, unknown.line) if unknown else (_trap(field), field.line)
        # The folder of the program that is launched need not be known, nor that of a script's own tree.
        in_folder = unknown is not None and (field is entry or _OWN_TREE.match(unknown.text))
        if why and why not in told and not (in_folder and "/" in field.pieces[-1].text):
            what = f"the argument {shown_key(field.text)} can't be known: {why}" if unknown else why
            mistakes.add(line, f"{flag}{what}")
            told.add(why)
    return bool(told)


def _trap(field: Field) -> str:
    """What would become of an argument in bash."""
    if field.text.startswith("#"):
        return "inside quotes # begins no comment; the program gets the text that follows as arguments"
    bare = "".join(piece.text for piece in field.pieces if not piece.quoted)
    match = _EXPANDED_BY_BASH.search(bare)
    argument = shown_key(field.text)
    return (
        f"bash replaces {match[0]} in the argument {argument}; put it in quotes or write the value itself"
        if match
        else ""
    )

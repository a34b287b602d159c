"""A launch script as data: a subset of bash is parsed and nothing of it is ever executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import dropwhile
from pathlib import Path

from mm_config.importing.facts import Fact, Source
from mm_config.importing.parsers.script import Note, Script
from mm_config.importing.parsers.shell_launch import LAUNCHERS, Launch, read_launch
from mm_config.importing.parsers.shell_syntax import Literal, Operator, Statement, Word, statements
from mm_config.importing.parsers.shell_values import (
    READ_ONLY,
    Field,
    Piece,
    Variables,
    foreign_program,
    text_of,
    unknown_of,
)
from mm_config.importing.parsers.text import Mistakes, read_text
from mm_config.stored.parsing import shown_key

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLOCK = re.compile(r"if|then|else|elif|fi|for|while|until|do|done|case|esac|function|select|\{|\}|\[\[")
_IGNORED = f"{READ_ONLY}|cd|chmod|chown|mkdir|set|sleep|ulimit|wait"
_MAX_BYTES = 2**20
_TO_A_FILE = re.compile(r"[0-9]*>[>|&]?|&>>?")


def read_shell(file: Path) -> Script:
    """What a launch script says.

    Understood are comments, `source`, `A=b`, `A+=b`, `export`, quotes, `$A`, `${A}`, `${A:-default}`,
    `$((...))`, continuations, one launch command whose output may go to files and through `tee`, and
    commands that set nothing (`mkdir`, `chmod`, `grep`, `echo`), which are noted.

    Raises:
        UserError: The file can't be read (see `read_text`), or everything in it that is outside this
            subset, each with its file and line.
    """
    text = read_text(file, _MAX_BYTES)
    mistakes = Mistakes(file)
    reader = _Reader(file, mistakes)
    if text.marked:
        reader.note(1, "begins with a byte order mark, which bash would take for a part of the first command")
    if text.crlf:
        reader.note(1, "lines end in CRLF, which bash would stumble over; they were read as LF")
    for statement in statements(text.text, mistakes):
        reader.statement(statement)
    mistakes.check()
    return reader.script()


class _Reader:
    """What the script has said so far."""

    def __init__(self, file: Path, mistakes: Mistakes) -> None:
        self._file = file
        self._mistakes = mistakes
        self._variables = Variables(mistakes)
        self._assignments: list[Fact] = []
        self._exports: list[Fact] = []
        self._exported: set[str] = set()
        self._opaque: dict[str, bool] = {}
        self._launch: Launch | None = None
        self._launched: int | None = None

    def note(self, line: int, text: str) -> None:
        self._variables.notes.append(Note(line, text))

    def script(self) -> Script:
        launch = self._launch
        notes = [*self._variables.notes, *(launch.notes if launch else ())]
        return Script(
            assignments=tuple(self._assignments),
            exports=tuple(self._exports),
            opaque=frozenset(name for name, opaque in self._opaque.items() if opaque),
            launch=launch.flags if launch else (),
            program=launch.program if launch else None,
            entry=launch.entry if launch else None,
            notes=tuple(sorted(dict.fromkeys(notes), key=lambda note: note.line)),
        )

    def statement(self, statement: Statement) -> None:
        self._check_form(statement)
        words = _leading_words(statement)
        commands = list(dropwhile(_is_assignment, words))
        rest = statement.items[len(words) :]
        if not commands:
            self._plain_only(rest, "an assignment")
            for word in words:
                self._assign(word, exported=False)
            return
        name = commands[0].literal
        if name == "export":
            self._plain_only(rest, "an export")
            for word in commands[1:]:
                self._export(word)
        elif name in ("source", "."):
            self._plain_only(rest, "a source command")
            self._check_words(commands)
            target = " ".join(word.text for word in commands[1:])
            self.note(statement.line, f"source {target}: not read; what it sets is not known here")
        elif name and re.fullmatch(_IGNORED, name):
            self._ignored(statement, commands, name)
        else:
            self._command(words, commands, rest)

    def _check_form(self, statement: Statement) -> None:
        """Ends the reading where the lines that follow would not mean what they seem to."""
        for before, item in zip((None, *statement.items), statement.items, strict=False):
            if not isinstance(item, Operator):
                continue
            if item.text in ("(", ")"):
                array = isinstance(before, Word) and _ASSIGNMENT.fullmatch(before.text)
                what = "an array" if array else "a function, an array or a subshell"
                raise self._mistakes.fatal(item.line, f"{what} is not read here; write plain assignments")
            if item.text.endswith("<<"):
                raise self._mistakes.fatal(item.line, "a here-document is not read here")
        first = statement.items[0]
        if isinstance(first, Word) and _BLOCK.fullmatch(first.text):
            message = f"`{first.text}` is not read here; write out the lines that are to count"
            raise self._mistakes.fatal(first.line, message)

    def _plain_only(self, rest: Sequence[Word | Operator], what: str) -> None:
        """Reports pipes, redirections and further commands."""
        for item in rest:
            if isinstance(item, Operator):
                message = (
                    f"{item.text} after {what} is not read here, and nothing was run; give it its own line"
                )
                self._mistakes.add(item.line, message)
                return

    def _assign(self, word: Word, exported: bool) -> None:
        first = word.parts[0]
        match = _ASSIGNMENT.match(first.text) if isinstance(first, Literal) else None
        if match is None or not isinstance(first, Literal):
            return
        name, operator = match.groups()
        rest = first.text[match.end() :]
        parts = (Literal(rest, first.line, quoted=False), *word.parts[1:])
        if rest.startswith("~"):
            self._mistakes.add(word.line, f"{name}: ~ depends on who runs the script; write out the folder")
        before = self._variables.get(name) if operator == "+=" else None
        self._variables.about = name
        self._record(name, (*(before or ()), *self._variables.expand(parts)), word.line, exported)
        self._variables.about = ""

    def _record(self, name: str, pieces: tuple[Piece, ...], line: int, exported: bool) -> None:
        value = self._variables.set(name, pieces)
        # A variable that was exported stays so when it is set again.
        exported = exported or name in self._exported
        kind = "environment variable" if exported else "shell variable"
        fact = Fact(Source(self._file, kind), name, text_of(value), line)
        if exported:
            self._exported.add(name)
        (self._exports if exported else self._assignments).append(fact)
        reason = unknown_of(value)
        self._opaque[name] = reason is not None
        if reason:
            self.note(line, f"{name}: {reason}")

    def _export(self, word: Word) -> None:
        if _is_assignment(word):
            self._assign(word, exported=True)
            return
        name = word.literal or ""
        value = self._variables.get(name)
        if not _NAME.fullmatch(name):
            self._mistakes.add(word.line, f"export {shown_key(word.text)} is not read here; A or A=b is")
        elif value is None:
            self._mistakes.add(word.line, f"export {name}: {name} is not set above")
        else:
            self._record(name, value, word.line, exported=True)

    def _ignored(self, statement: Statement, commands: list[Word], name: str) -> None:
        items = _without_redirections(statement.items[statement.items.index(commands[0]) :])
        program = foreign_program(Statement(tuple(items), statement.line), _IGNORED)
        if program is not None:
            message = f"{program} after {name} is not read here, and nothing was run"
            self._mistakes.add(statement.line, message)
        self._check_words(statement.items)
        why = "relative paths count from there" if name == "cd" else "it sets nothing"
        self.note(statement.line, f"{name}: ignored, {why}")

    def _command(self, words: list[Word], commands: list[Word], rest: Sequence[Word | Operator]) -> None:
        line = commands[0].line
        if commands[0].literal == "nohup":
            self.note(line, "nohup: ignored")
            commands = commands[1:]
        name = commands[0].text if commands else "nohup"
        fields = list(self._fields(commands))
        program = fields[0].text.rpartition("/")[2] if fields else ""
        if not LAUNCHERS.fullmatch(program):
            message = f"{shown_key(name)} is no command that is read here; nothing was run"
            self._mistakes.add(line, message)
            return
        if self._launched is not None:
            self._mistakes.add(line, f"a second launch; the first is on line {self._launched}")
            return
        self._launched = line
        for word in words[: -len(commands)]:
            self._assign(word, exported=True)
        self._tail(rest)
        self._launch = read_launch(fields, Source(self._file, "shell flag"), self._mistakes)

    def _fields(self, commands: list[Word]) -> Iterator[Field]:
        """The arguments of a command; what is wrong with one is told with the flag that it belongs to."""
        for word in commands:
            if word.text.startswith("-"):
                self._variables.about = word.text.partition("=")[0]
            yield from self._variables.fields(word)
        self._variables.about = ""

    def _tail(self, rest: Sequence[Word | Operator]) -> None:
        """Notes where the launch's output goes; it must be the end of the command."""
        if not rest:
            return
        line = rest[0].line
        items = list(rest)
        if isinstance(items[-1], Operator) and items[-1].text == "&":
            items.pop()
        self._check_words(items)
        left = _without_redirections(items)
        if left and isinstance(left[0], Word):
            message = f"a redirection stands before the argument {shown_key(left[0].text)}; put it at the end"
            self._mistakes.add(left[0].line, message)
            return
        program = foreign_program(Statement(tuple(left), line), READ_ONLY)
        if program is not None:
            self._mistakes.add(left[0].line, f"{program} after the launch is not read here; nothing was run")
            return
        text = " ".join(item.text for item in rest).replace("& ", "&")
        self.note(line, f"{shown_key(text)}: ignored, it only leads the output elsewhere")

    def _check_words(self, items: Sequence[Word | Operator]) -> None:
        for item in items:
            if isinstance(item, Word):
                self._variables.check_substitutions(item.parts)


def _leading_words(statement: Statement) -> list[Word]:
    words: list[Word] = []
    for item in statement.items:
        if isinstance(item, Operator):
            break
        words.append(item)
    return words


def _is_assignment(word: Word) -> bool:
    # Quotes before the = make it a command's name.
    first = word.parts[0] if word.parts else None
    return isinstance(first, Literal) and not first.quoted and _ASSIGNMENT.match(first.text) is not None


def _without_redirections(items: Sequence[Word | Operator]) -> list[Word | Operator]:
    """The items less those that lead output to a file or another stream."""
    left: list[Word | Operator] = []
    for before, item in zip((None, *items), items, strict=False):
        after_arrow = isinstance(before, Operator) and _TO_A_FILE.fullmatch(before.text)
        arrow = isinstance(item, Operator) and _TO_A_FILE.fullmatch(item.text)
        if not arrow and not (after_arrow and isinstance(item, Word)):
            left.append(item)
    return left

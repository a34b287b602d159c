"""A launch script as data: scripts of the published shape are read, and nothing of them is ever executed."""

from __future__ import annotations

import re
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path

from mm_config.importing.facts import Fact, Source
from mm_config.importing.parsers.script import Script
from mm_config.importing.parsers.shell_launch import LAUNCHERS, Launch, read_launch
from mm_config.importing.parsers.shell_syntax import Item, ShellText
from mm_config.importing.parsers.shell_values import Piece, Variables, text_of, unknown_of
from mm_config.importing.parsers.text import Mistakes, Note, read_text
from mm_config.stored.parsing import shown_key

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CLOSERS = {"if": "fi", "for": "done", "while": "done", "until": "done", "select": "done", "case": "esac"}
_LEADING = ("if", "then", "else", "elif", "while", "until", "do", "!", "time", "{")
_SETTERS = re.compile(
    r"eval|read|declare|typeset|let|unset|getopts|mapfile|readarray|command|builtin|alias|trap"
)
_ENDS_COMMAND = re.compile(r"[|&()]+")
_LAUNCHING = re.compile(
    r"(?:^|[;&|({`]|\b(?:then|do|else|nohup|exec|time)\b)[ \t]*(?:[A-Za-z_]\w*=\S*[ \t]+)*(?:[^\s;&|]*/)?"
    r"(?:torchrun|accelerate|deepspeed|msrun|python[0-9.]*[ \t]+-m[ \t]+torch)\b",
    re.MULTILINE,
)
_NOTHING = re.compile(r"(?:\s|\\\n|;|#[^\n]*)*")
_MAX_BYTES = 2**20


def read_shell(file: Path) -> Script:
    """What a launch script says.

    Read are comments, `A=b`, `A+=b`, `export`, quotes, `$A`, `${A}`, `${A:-default}`, `$((A*B))`,
    continuations and one launch command. What follows the launch, and any other statement before it, is noted
    as not read; a variable that it may set has no known value from there on.

    Raises:
        UserError: The file can't be read (see `read_text`), its launch depends on what is not known, or on
            what is not read; each with its file and line.
    """
    text = read_text(file, _MAX_BYTES)
    mistakes = Mistakes(file)
    reader = _Reader(file, ShellText(text.text, mistakes), mistakes)
    if text.marked:
        reader.note(1, "begins with a byte order mark, which bash would take for a part of the first command")
    if text.crlf:
        reader.note(1, "lines end in CRLF, which bash would stumble over; they were read as LF")
    reader.read()
    mistakes.check()
    return reader.script()


class _Reader:
    """What the script has said so far."""

    def __init__(self, file: Path, shell: ShellText, mistakes: Mistakes) -> None:
        self._file = file
        self._shell = shell
        self._mistakes = mistakes
        self._variables = Variables(shell, mistakes)
        self._assignments: list[Fact] = []
        self._exports: dict[str, list[Fact]] = {}
        self._launch: Launch | None = None

    def note(self, line: int, text: str) -> None:
        self._variables.notes.append(Note(line, text))

    def script(self) -> Script:
        launch = self._launch
        notes = [*self._variables.notes, *(launch.notes if launch else ())]
        exports = [fact for name in self._exports for fact in self._exported(name)]
        return Script(
            assignments=tuple(self._assignments),
            exports=tuple(sorted(exports, key=lambda fact: fact.line)),
            launch=launch.flags if launch else (),
            reached=launch.reached if launch else {},
            program=launch.program if launch else None,
            entry=launch.entry if launch else None,
            line=launch.line if launch else 1,
            notes=tuple(sorted(dict.fromkeys(notes), key=lambda note: note.line)),
        )

    def _exported(self, name: str) -> list[Fact]:
        """What was exported under a name, and at the end what is not read may have made of it."""
        facts = self._exports[name]
        value = self._variables.get(name) or ()
        unknown = unknown_of(value)
        if unknown and text_of(value) != facts[-1].value:
            return [*facts, Fact(facts[-1].source, name, unknown.text, unknown.line)]
        return facts

    def read(self) -> None:
        """Reads up to the launch."""
        unread: Item | None = None
        closers: list[str] = []
        for items in self._shell.statements():
            if unread is None and self._statement(items):
                if self._launch is not None:
                    return
                continue
            unread = unread or items[0]
            self._nest(items, closers)
            if not closers:
                self._not_read(unread, items[-1].end)
                unread = None
        if unread is not None:
            message = f"the {shown_key(unread.text)} that opens here is never closed"
            raise self._mistakes.fatal(self._line(unread), message)

    def _statement(self, items: tuple[Item, ...]) -> bool:
        """Reads a statement that has the shape of those in published scripts; whether it has."""
        words = list(takewhile(lambda item: item.is_word, items))
        commands = list(dropwhile(lambda word: _ASSIGNMENT.match(word.text), words))
        assignments = words[: len(words) - len(commands)]
        if not commands and len(words) == len(items):
            for word in words:
                self._assign(word, exported=False)
        elif len(commands) == len(items) and commands[0].text == "export":
            for word in commands[1:]:
                self._export(word)
        elif self._is_launch(commands):
            self._launched(assignments, commands, items[len(words) :])
        else:
            return False
        return True

    def _is_launch(self, commands: list[Item]) -> bool:
        program = commands[1:2] if commands[:1] and commands[0].text == "nohup" else commands[:1]
        field = next((field for word in program for field in self._variables.fields(word)), None)
        return field is not None and LAUNCHERS.fullmatch(field.text.rpartition("/")[2]) is not None

    def _launched(self, assignments: list[Item], commands: list[Item], rest: tuple[Item, ...]) -> None:
        if commands[0].text == "nohup":
            self.note(self._line(commands[0]), "nohup: ignored")
            commands = commands[1:]
        fields = [field for word in commands for field in self._variables.fields(word)]
        for word in assignments:
            self._assign(word, exported=True)
        for before, item in pairwise(takewhile(lambda item: not _ENDS_COMMAND.fullmatch(item.text), rest)):
            if before.is_word and item.is_word:
                message = (
                    f"a redirection stands before the argument {shown_key(item.text)}; put it at the end"
                )
                self._mistakes.add(self._line(item), message)
        self._launch = read_launch(fields, Source(self._file, "shell flag"), self._mistakes)
        line, text = self._line(commands[0]), self._shell.text
        if again := _LAUNCHING.search(text, commands[-1].end):
            message = f"a second launch; the first is on line {line}"
            self._mistakes.add(self._shell.line(again.end()), message)
        match = _NOTHING.match(text, commands[-1].end)
        if match and match.end() < len(text):
            after = shown_key(text[match.end() :].partition("\n")[0].strip())
            self.note(self._shell.line(match.end()), f"{after}: not read, nor is what follows the launch")

    def _not_read(self, first: Item, end: int) -> None:
        """Notes that statements before the launch are not read, and forgets what they may set."""
        text, line = self._shell.text[first.start : end], self._line(first)
        if _LAUNCHING.search(text):
            message = (
                f"{shown_key(first.text)} is not read here, and holds a launch; give the launch its own line"
            )
            self._mistakes.add(line, message)
        sets = "; what it sets is not known here" if first.text in ("source", ".") else ""
        last = self._shell.line(end)
        upto = f", up to line {last}" if last != line else ""
        self.note(line, f"{shown_key(text.partition(chr(10))[0])}: not read{upto}{sets}")
        self._variables.forget(text, line)

    def _nest(self, items: tuple[Item, ...], closers: list[str]) -> None:
        """Follows which blocks are open; ends the reading where anything might be set."""
        is_command = True
        for item in items:
            if not item.is_word:
                if item.text.endswith("<<"):
                    raise self._mistakes.fatal(self._line(item), "a here-document is not read here")
                if item.text == "(":
                    closers.append(")")
                elif item.text == ")" and closers[-1:] == [")"]:
                    closers.pop()
                is_command = _ENDS_COMMAND.fullmatch(item.text) is not None
                continue
            if item.text == "{":
                closers.append("}")
            elif is_command and item.text in _CLOSERS:
                closers.append(_CLOSERS[item.text])
            elif is_command and closers[-1:] == [item.text]:
                closers.pop()
            elif is_command and _SETTERS.fullmatch(item.text):
                message = f"`{item.text}` may set any variable; write out the lines that are to count"
                raise self._mistakes.fatal(self._line(item), message)
            is_command = is_command and (item.text in _LEADING or _ASSIGNMENT.match(item.text) is not None)

    def _assign(self, word: Item, exported: bool) -> None:
        match = _ASSIGNMENT.match(word.text)
        if match is None:
            return
        value = self._variables.expand(word.start + match.end(), word.end)
        if word.text.startswith("~", match.end()):
            reason = "~ depends on who runs the script; write out the folder"
            value = [Piece(word.text[match.end() :], self._line(word), True, reason)]
        if match[2] == "+=":
            value = [*(self._variables.get(match[1]) or ()), *value]
        self._record(match[1], value, word, exported)

    def _record(self, name: str, value: list[Piece], word: Item, exported: bool) -> None:
        pieces = self._variables.set(name, value)
        # A variable that was exported stays so when it is set again.
        exported = exported or name in self._exports
        kind = "environment variable" if exported else "shell variable"
        fact = Fact(Source(self._file, kind), name, text_of(pieces), self._line(word))
        (self._exports.setdefault(name, []) if exported else self._assignments).append(fact)
        if unknown := unknown_of(pieces):
            self.note(fact.line, f"{name}: {unknown.unknown}")

    def _export(self, word: Item) -> None:
        value = self._variables.get(word.text)
        if _ASSIGNMENT.match(word.text):
            self._assign(word, exported=True)
        elif value is None or not _NAME.fullmatch(word.text):
            message = f"export {shown_key(word.text)} is not read here; A=b is, and an A that is set above"
            self._mistakes.add(self._line(word), message)
        else:
            self._record(word.text, list(value), word, exported=True)

    def _line(self, item: Item) -> int:
        return self._shell.line(item.start)

"""The values of a script's words: variables replaced, arithmetic done, nothing run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import attrs

from mm_config.importing.parsers.script import Note
from mm_config.importing.parsers.shell_arithmetic import evaluate, whole_number
from mm_config.importing.parsers.shell_syntax import (
    Arithmetic,
    Literal,
    Operator,
    Part,
    Statement,
    Substitution,
    Unsupported,
    Variable,
    Word,
)
from mm_config.importing.parsers.text import Mistakes
from mm_config.schema.errors import UserError
from mm_config.stored.parsing import shown_key

READ_ONLY = (
    "awk|basename|bc|cat|cut|date|dirname|echo|egrep|expr|find|grep|head|hostname|ls|nproc|printf|pwd|sed|seq"
    "|sort|tail|tee|tr|uname|uniq|wc|whoami"
)
"""Programs that set no variable of the script; a substitution of them is a value that only a run knows."""

_INHERITED = ("HOME", "HOSTNAME", "LD_LIBRARY_PATH", "PATH", "PWD", "PYTHONPATH", "USER")
_MAX_CHARACTERS = 2**18
_SPACES = re.compile(r"([ \t\n]+)")


@attrs.frozen
class Piece:
    """Text of one line, within a value."""

    text: str
    line: int
    quoted: bool
    """It is not split at its spaces."""
    unknown: str | None = None
    """Why only a run would know the text; empty where a mistake was reported for it already."""
    owner: str | None = None
    """The variable in whose assignment the text stands, or None outside all of them."""


Value: TypeAlias = "tuple[Piece, ...]"


@attrs.frozen
class Field:
    """One argument of a command."""

    pieces: Value
    line: int

    @property
    def text(self) -> str:
        return text_of(self.pieces)

    @property
    def unknown(self) -> str | None:
        return unknown_of(self.pieces)


class Variables:
    """The variables that a script has set so far."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.notes: list[Note] = []
        self.about = ""
        """The variable or flag whose value is being read; messages name it."""
        self._mistakes = mistakes
        self._values: dict[str, Value] = {}
        self._characters = 0

    def get(self, name: str) -> Value | None:
        """The value of a variable, or None where the script has not set it."""
        return self._values.get(name)

    def set(self, name: str, value: Iterable[Piece]) -> Value:
        """Gives a variable its value; text that comes from no other variable is this one's from now on."""
        owned = _joined(attrs.evolve(piece, owner=piece.owner or name, quoted=False) for piece in value)
        self._values[name] = owned
        return owned

    def expand(self, parts: Sequence[Part]) -> Value:
        """The value of a word's parts, with every mistake in them reported.

        Raises:
            UserError: Variables that hold variables grew beyond all measure, or too many mistakes.
        """
        value = tuple(piece for part in parts for piece in self._part(part))
        self._characters += sum(len(piece.text) + 1 for piece in value)
        if self._characters > _MAX_CHARACTERS:
            line = parts[0].line
            message = f"the variables come to more than {_MAX_CHARACTERS // 2**10} KiB of text"
            raise self._mistakes.fatal(line, message)
        return value

    def fields(self, word: Word) -> Iterator[Field]:
        """The arguments that a word becomes: text of variables outside quotes is split at its spaces."""
        pieces: list[Piece] = []
        for piece in self.expand(word.parts):
            parts = [piece.text] if piece.quoted or piece.unknown is not None else _SPACES.split(piece.text)
            for number, text in enumerate(parts):
                if number % 2 and pieces:
                    yield _field(pieces)
                    pieces = []
                elif number % 2 == 0 and (text or piece.quoted):
                    pieces.append(attrs.evolve(piece, text=text))
        if pieces:
            yield _field(pieces)

    def check_substitutions(self, parts: Iterable[Part]) -> None:
        """Reports what must not be ignored in words that are not expanded."""
        for part in parts:
            if isinstance(part, Substitution):
                self._substitution(part)
            elif isinstance(part, Arithmetic):
                self.check_substitutions(part.inner)
            elif isinstance(part, Variable) and part.default:
                self.check_substitutions(part.default)

    def _add(self, line: int, message: str) -> None:
        self._mistakes.add(line, f"{self.about}: {message}" if self.about else message)

    def _note(self, line: int, text: str) -> None:
        self.notes.append(Note(line, f"{self.about}: {text}" if self.about else text))

    def _part(self, part: Part) -> Value:
        if isinstance(part, Literal):
            return (Piece(part.text, part.line, part.quoted),)
        if isinstance(part, Variable):
            return self._variable(part)
        if isinstance(part, Arithmetic):
            return (self._arithmetic(part),)
        if isinstance(part, Substitution):
            reason = f"{shown_key(part.text)} is known only when the script runs"
            return (Piece(part.text, part.line, True, reason if self._substitution(part) else ""),)
        return (self._unsupported(part),)

    def _variable(self, part: Variable) -> Value:
        value = self._values.get(part.name)
        if value is not None and not (part.also_if_empty and part.default and not text_of(value)):
            return tuple(attrs.evolve(piece, quoted=part.quoted) for piece in value)
        if part.default is not None:
            if value is None:
                text = f"{part.name} may be set outside of the script; its default was read"
                self._note(part.line, text)
            return self.expand(part.default)
        if part.name in _INHERITED:
            reason = f"the script inherits ${part.name}"
            return (Piece(f"${part.name}", part.line, True, reason),)
        message = f"${part.name} is not set above; set it in the script, or give ${{{part.name}:-default}}"
        if not part.name[0].isalpha() and part.name[0] != "_":
            message = f"${part.name} is known only when the script runs; write its value"
        self._add(part.line, message)
        return (Piece("", part.line, part.quoted, ""),)

    def _arithmetic(self, part: Arithmetic) -> Piece:
        inner = self.expand(part.inner)
        if (unknown := unknown_of(inner)) is not None:
            return Piece("", part.line, part.quoted, unknown)
        expression = text_of(inner)
        try:
            number = evaluate(expression, self._number)
        except UserError as error:
            message = f"$(({shown_key(expression)})): {error.problems[0].message}"
            self._add(part.line, message)
            return Piece("", part.line, part.quoted, "")
        if number.cut:
            text = f"$(({shown_key(expression)})) leaves a remainder, which bash drops: {number.value}"
            self._note(part.line, text)
        return Piece(str(number.value), part.line, part.quoted)

    def _number(self, name: str) -> int:
        value = self._values.get(name)
        if value is None or unknown_of(value) is not None:
            raise UserError(f"{shown_key(name)} is no number and no variable with a known value")
        return whole_number(text_of(value))

    def _unsupported(self, part: Unsupported) -> Piece:
        message = f"{shown_key(part.text)} is not read here; $A, ${{A}}, ${{A:-default}} and $((...)) are"
        self._add(part.line, message)
        return Piece(part.text, part.line, part.quoted, "")

    def _substitution(self, part: Substitution) -> bool:
        """Whether a substitution only looks something up; what else it would do is reported."""
        for statement in part.statements:
            program = foreign_program(statement, READ_ONLY)
            if program is not None:
                message = (
                    f"{shown_key(part.text)} would run {program}; nothing was run; write the value itself"
                )
                self._add(part.line, message)
                return False
            for item in statement.items:
                if isinstance(item, Word):
                    self.check_substitutions(item.parts)
        return True


def foreign_program(statement: Statement, known: str) -> str | None:
    """What in a pipeline is not one of the known programs (a pattern), as a message names it, or None."""
    expected = True
    for item in statement.items:
        if isinstance(item, Operator):
            if item.text not in ("|", "|&"):
                return f"a command with {item.text}"
            expected = True
        elif expected:
            if not re.fullmatch(known, item.literal or ""):
                return shown_key(item.text)
            expected = False
    return None


def text_of(value: Value) -> str:
    """The text of a value."""
    return "".join(piece.text for piece in value)


def unknown_of(value: Value) -> str | None:
    """Why a value is not known: empty where that was reported already, None where it is known."""
    return next((piece.unknown for piece in value if piece.unknown is not None), None)


def _joined(value: Iterable[Piece]) -> Value:
    """The same value in as few pieces as can be, lest values of values fall apart into millions."""
    joined: list[Piece] = []
    for piece in value:
        last = joined[-1] if joined else piece
        known = last.unknown is None and piece.unknown is None
        if joined and known and (last.line, last.owner) == (piece.line, piece.owner):
            joined[-1] = attrs.evolve(piece, text=last.text + piece.text)
        elif piece.text or piece.unknown is not None:
            joined.append(piece)
    return tuple(joined)


def _field(pieces: list[Piece]) -> Field:
    line = next((piece.line for piece in pieces if piece.text), pieces[0].line)
    return Field(tuple(pieces), line)

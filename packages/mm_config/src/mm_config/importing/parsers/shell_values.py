"""The values of a script's words: variables replaced, arithmetic done, nothing run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import attrs

from mm_config.importing.parsers.shell_syntax import Item, ShellText
from mm_config.importing.parsers.text import Mistakes, Note
from mm_config.schema.errors import UserError
from mm_config.stored.parsing import shown_key

_LITERAL = re.compile(r"[^\\'\"$`\n]+")
_LINE = re.compile(r"[^\n]+\n?|\n")
_NAMED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*|[0-9@#?$!*-])")
_BRACED = re.compile(r"([A-Za-z_]\w*)(?:(:?)-(\"?)([^'\"\\`(){}]*)\3)?", re.ASCII)
_OTHER = re.compile(r"\$'(?:[^'\\]|\\.)*'|\$(?=[\"\[])", re.DOTALL)
_SET_IN = re.compile(
    r"([A-Za-z_]\w*)(?:\[[^\]\n]*\])?(?:[-+*/%:&|^]|<<|>>)?=|([A-Za-z_]\w*)(?:\+\+|--)|(?:\+\+|--)([A-Za-z_]\w*)"
    r"|\b(?:for|select)\s+(\w+)",
    re.ASCII,
)
_FUNCTION = re.compile(r"\{\s|\(\s*\)|\bfunction\b")
_SPACES = re.compile(r"([ \t\n]+)")
_SUM = re.compile(r"(?!.*--)\s*(?:[-+]\s*)?-?\w+(?:\s*[-+*/]\s*-?\w+)*\s*", re.ASCII | re.DOTALL)
_TERM = re.compile(r"([-+*/]?)\s*(-?)(\w+)", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_LIMIT = 2**63
_MAX_CHARACTERS = 2**18


@attrs.frozen
class Piece:
    """Text of one line, within a value."""

    text: str
    """The text."""
    line: int
    """From 1."""
    quoted: bool
    """It is not split at its spaces."""
    unknown: str = ""
    """Why only a run would know the text."""
    owner: str | None = None
    """The variable in whose assignment the text stands, or None outside all of them."""


@attrs.frozen
class Field:
    """One argument of a command."""

    pieces: tuple[Piece, ...]
    """In their order."""

    @property
    def line(self) -> int:
        """Where its text begins."""
        return next((piece.line for piece in self.pieces if piece.text), self.pieces[0].line)

    @property
    def text(self) -> str:
        """After expansion."""
        return text_of(self.pieces)


class Variables:
    """The variables that a script has set so far."""

    def __init__(self, shell: ShellText, mistakes: Mistakes) -> None:
        self.notes: list[Note] = []
        self._shell = shell
        self._mistakes = mistakes
        self._values: dict[str, tuple[Piece, ...]] = {}
        self._never_known: dict[str, Piece] = {}
        self._characters = 0

    def get(self, name: str) -> tuple[Piece, ...] | None:
        """The value of a variable, or None where the script has not set it."""
        return self._values.get(name)

    def set(self, name: str, value: Iterable[Piece]) -> tuple[Piece, ...]:
        """Gives a variable its value; text that comes from no other variable is this one's from now on."""
        if name in self._never_known:
            value = [self._never_known[name]]
        owned = tuple(attrs.evolve(piece, owner=piece.owner or name, quoted=False) for piece in value)
        self._values[name] = tuple(piece for piece in owned if piece.text)
        return self._values[name]

    def forget(self, text: str, line: int) -> None:
        """Makes each variable unknown that this text, which is not read, may set; a function's for good."""
        for match in _SET_IN.finditer(text):
            name = match[match.lastindex or 0]
            piece = Piece(f"${name}", line, True, f"line {line}, which is not read, may set {name}", name)
            self._values[name] = (piece,)
            if _FUNCTION.search(text):
                self._never_known[name] = piece

    def expand(self, start: int, end: int, quoted: bool = False) -> list[Piece]:
        """The value of a stretch of the script.

        Raises:
            UserError: Variables that hold variables grew beyond all measure.
        """
        text = self._shell.text
        value: list[Piece] = []
        at = start
        while at < end:
            line = self._shell.line(at)
            if match := _LITERAL.match(text, at, end):
                value.append(Piece(match[0], line, quoted))
                at = match.end()
            elif text.startswith("\\\n", at):
                at += 2
            elif text[at] == "\\":
                escapes = not quoted or text[at + 1] in '"\\$`'
                value.append(Piece(text[at + escapes : at + 2], line, True))
                at += 2
            elif text[at] in "'\"" and not quoted:
                close = self._shell.closing(at)
                value.append(Piece("", line, True))
                if text[at] == '"':
                    value += self.expand(at + 1, close, True)
                else:
                    parts = _LINE.findall(text[at + 1 : close])
                    value += [Piece(part, line + number, True) for number, part in enumerate(parts)]
                at = close + 1
            elif text[at] in "$`":
                found, at = self._expansion(at, quoted)
                value += found
            else:
                value.append(Piece(text[at], line, quoted))
                at += 1
        return value

    def fields(self, word: Item) -> Iterator[Field]:
        """The arguments that a word becomes: text of variables outside quotes is split at its spaces."""
        pieces: list[Piece] = []
        for piece in self.expand(word.start, word.end):
            parts = [piece.text] if piece.quoted or piece.unknown else _SPACES.split(piece.text)
            for number, text in enumerate(parts):
                if number % 2 and pieces:
                    yield Field(tuple(pieces))
                    pieces = []
                elif number % 2 == 0 and (text or piece.quoted):
                    pieces.append(attrs.evolve(piece, text=text))
        if pieces:
            yield Field(tuple(pieces))

    def _expansion(self, at: int, quoted: bool) -> tuple[list[Piece], int]:
        """The value of what begins with this `$` or backtick, and where it ends."""
        text, line = self._shell.text, self._shell.line(at)
        if match := _NAMED.match(text, at):
            return self._variable(match[1], line, quoted), match.end()
        if (match := _OTHER.match(text, at)) and not (quoted and text[at + 1] in "'\""):
            return [self._not_read(match[0], line)], match.end()
        opening = at + (text[at] == "$")
        if text[opening : opening + 1] not in ("(", "{", "`"):
            return [Piece("$", line, quoted)], at + 1
        close = self._shell.closing(opening)
        whole = text[at : close + 1]
        if whole.startswith("${"):
            return self._braces(opening + 1, close, whole, quoted), close + 1
        if whole.startswith("$((") and whole.endswith("))"):
            return [self._arithmetic(opening + 2, close - 1, quoted)], close + 1
        reason = f"{shown_key(whole)} is known only when the script runs"
        return [Piece(whole, line, True, reason)], close + 1

    def _variable(self, name: str, line: int, quoted: bool) -> list[Piece]:
        if (value := self._values.get(name)) is not None:
            self._characters += sum(len(piece.text) + 1 for piece in value)
            if self._characters > _MAX_CHARACTERS:
                message = f"the variables come to more than {_MAX_CHARACTERS // 2**10} KiB of text"
                raise self._mistakes.fatal(line, message)
            return [attrs.evolve(piece, quoted=quoted) for piece in value]
        reason = f"${name} is not set above; set it in the script, or give ${{{name}:-default}}"
        if not name[0].isalpha() and name[0] != "_":
            reason = f"${name} is known only when the script runs; write its value"
        return [Piece(f"${name}", line, True, reason)]

    def _braces(self, start: int, end: int, whole: str, quoted: bool) -> list[Piece]:
        line = self._shell.line(start)
        match = _BRACED.fullmatch(self._shell.text, start, end)
        if match is None:
            return [self._not_read(whole, line)]
        value = self._values.get(match[1])
        if match[4] is None or value or (value is not None and not match[2]):
            return self._variable(match[1], line, quoted)
        if value is None:
            self.notes.append(
                Note(line, f"{match[1]} may be set outside of the script; its default was read")
            )
        return self.expand(*match.span(4), quoted or bool(match[3]))

    def _not_read(self, whole: str, line: int) -> Piece:
        self.forget(whole, line)
        reason = f"{shown_key(whole)} is not read here; $A, ${{A}}, ${{A:-default}} and $((...)) are"
        return Piece(whole, line, True, reason)

    def _arithmetic(self, start: int, end: int, quoted: bool) -> Piece:
        line = self._shell.line(start)
        if "$(" in self._shell.text[start:end]:
            return self._not_read(self._shell.text[start - 3 : end + 2], line)
        inner = self.expand(start, end, True)
        if unknown := unknown_of(inner):
            return unknown
        whole = f"$(({text_of(inner)}))"
        try:
            value, cut = self._sum(text_of(inner))
        except UserError as error:
            self.forget(whole, line)
            return Piece(whole, line, True, f"{shown_key(whole)}: {error.problems[0].message}")
        if cut:
            text = f"{shown_key(whole)} leaves a remainder, which bash drops: {value}"
            self.notes.append(Note(line, text))
        return Piece(str(value), line, quoted)

    def _sum(self, text: str) -> tuple[int, bool]:
        """The value as bash computes it, in whole numbers cut towards zero, and whether any was cut.

        Raises:
            UserError: There is more in it than whole numbers, variables, + - * and /.
        """
        if not _SUM.fullmatch(text):
            raise UserError(f"arithmetic knows whole numbers, names, + - * and /, got {shown_key(text)}")
        total, term, cut = 0, 0, False
        for operator, minus, operand in _TERM.findall(text):
            number = -self._number(operand) if minus else self._number(operand)
            if operator == "*":
                term *= number
            elif operator == "/":
                if number == 0:
                    raise UserError("the arithmetic divides by zero")
                quotient = abs(term) // abs(number)
                cut = cut or quotient * abs(number) != abs(term)
                term = quotient if (term < 0) == (number < 0) else -quotient
            else:
                total, term = total + term, -number if operator == "-" else number
            if not (-_LIMIT <= term < _LIMIT and -_LIMIT <= total + term < _LIMIT):
                raise UserError("the arithmetic does not fit into the 64 bits of bash's numbers")
        return total + term, cut

    def _number(self, text: str) -> int:
        value = self._values.get(text)
        if value is not None and unknown_of(value):
            raise UserError(f"the value of {text} is not known")
        found = text if value is None else text_of(value)
        if not _NUMBER.fullmatch(found):
            raise UserError(f"arithmetic needs whole numbers, got {shown_key(found)}")
        return int(found)


def text_of(value: Iterable[Piece]) -> str:
    """The text of a value."""
    return "".join(piece.text for piece in value)


def unknown_of(value: Iterable[Piece]) -> Piece | None:
    """The first piece that only a run would know."""
    return next((piece for piece in value if piece.unknown), None)

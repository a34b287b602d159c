"""A launch script as statements of words, before any variable is replaced: quotes, `$A`, continuations."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias

import attrs

from mm_config.importing.parsers.text import Mistakes

_OPERATOR = re.compile(r"&>>|&>|&&|\|\||\|&|;;|[|&;()]|[0-9]*(?:<<<|<<|<&|<>|>>|>&|>\||<|>)")
_PLAIN = re.compile(r"[^ \t\n|&;<>()\\'\"$`]+")
_QUOTED = re.compile(r"[^\"\\$`\n]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = re.compile(r"[0-9@#?$!*-]")
_NESTING = re.compile(r"\\.|['\"`(){}]|\$[({]", re.DOTALL)
_MAX_DEPTH = 32


@attrs.frozen
class Literal:
    """Text of one line that stands for itself."""

    text: str
    line: int
    quoted: bool


@attrs.frozen
class Variable:
    """`$A`, `${A}`, `${A-default}` or `${A:-default}`."""

    name: str
    line: int
    quoted: bool
    default: tuple[Part, ...] | None = None
    also_if_empty: bool = False
    """With `:-` the default stands for an empty value as well."""


@attrs.frozen
class Arithmetic:
    """`$((...))`."""

    inner: tuple[Part, ...]
    line: int
    quoted: bool


@attrs.frozen
class Substitution:
    """`$(...)` or backticks: text that only a run would know."""

    text: str
    line: int
    quoted: bool
    statements: tuple[Statement, ...]


@attrs.frozen
class Unsupported:
    """An expansion outside the subset of bash that is read here."""

    text: str
    line: int
    quoted: bool


Part: TypeAlias = "Literal | Variable | Arithmetic | Substitution | Unsupported"


@attrs.frozen
class Word:
    """Parts without space between them."""

    parts: tuple[Part, ...]
    line: int
    text: str
    """As it stands in the script."""

    @property
    def literal(self) -> str | None:
        """Its text where nothing in it is to be replaced."""
        texts = [part.text for part in self.parts if isinstance(part, Literal)]
        return "".join(texts) if len(texts) == len(self.parts) else None


@attrs.frozen
class Operator:
    """`|`, `&&`, `;`, `2>&` and the like."""

    text: str
    line: int


@attrs.frozen
class Statement:
    """Words and operators up to the end of the line, continuations included."""

    items: tuple[Word | Operator, ...]
    line: int


def statements(text: str, mistakes: Mistakes) -> Iterator[Statement]:
    """The statements of a script one by one, so that reading can end before what is not understood.

    Raises:
        UserError: A quote, `$(`, `${` or backtick is never closed, or they nest too deeply.
    """
    newlines = [match.start() for match in re.finditer("\n", text)]
    return _Lexer(text, newlines, mistakes, 0, len(text), 0).statements()


class _Lexer:
    """A place in the text and the place where it ends; every method reads on from there."""

    def __init__(
        self, text: str, newlines: list[int], mistakes: Mistakes, at: int, end: int, depth: int
    ) -> None:
        self._text = text
        self._newlines = newlines
        self._mistakes = mistakes
        self._at = at
        self._end = end
        self._depth = depth
        if depth > _MAX_DEPTH:
            message = f"expansions are nested deeper than {_MAX_DEPTH} levels"
            raise mistakes.fatal(self._line(at), message)

    def statements(self) -> Iterator[Statement]:
        items: list[Word | Operator] = []
        while self._at < self._end:
            character = self._text[self._at]
            if character in " \t":
                self._at += 1
            elif self._text.startswith("\\\n", self._at, self._end):
                self._at += 2
            elif character == "#":
                newline = self._text.find("\n", self._at, self._end)
                self._at = self._end if newline < 0 else newline
            elif character == "\n":
                self._at += 1
                # A line that ends in a pipe goes on in the next.
                if items and not (isinstance(items[-1], Operator) and items[-1].text in ("|", "||", "&&")):
                    yield Statement(tuple(items), items[0].line)
                    items = []
            elif match := _OPERATOR.match(self._text, self._at, self._end):
                items.append(Operator(match[0], self._line(self._at)))
                self._at = match.end()
            else:
                items.append(self._word())
        if items:
            yield Statement(tuple(items), items[0].line)

    def _word(self) -> Word:
        start = self._at
        parts: list[Part] = []
        while self._at < self._end:
            line = self._line(self._at)
            character = self._text[self._at]
            if match := _PLAIN.match(self._text, self._at, self._end):
                parts.append(Literal(match[0], line, quoted=False))
                self._at = match.end()
            elif character == "\\":
                escaped = self._text[self._at + 1 : min(self._at + 2, self._end)]
                if escaped != "\n":
                    parts.append(Literal(escaped or "\\", line, quoted=True))
                self._at += 2
            elif character == "'":
                parts += self._single_quotes()
            elif character == '"':
                parts += self._double_quotes()
            elif character == "$":
                parts.append(self._dollar(quoted=False))
            elif character == "`":
                parts.append(self._substitution(self._at, quoted=False))
            else:
                break
        self._at = min(self._at, self._end)
        return Word(tuple(parts), self._line(start), self._text[start : self._at])

    def _single_quotes(self) -> Iterator[Part]:
        close = self._text.find("'", self._at + 1, self._end)
        line = self._line(self._at)
        if close < 0:
            raise self._mistakes.fatal(line, "the single quote that opens here is never closed")
        lines = self._text[self._at + 1 : close].split("\n")
        self._at = close + 1
        for number, text in enumerate(lines):
            yield Literal(text if number == len(lines) - 1 else f"{text}\n", line + number, quoted=True)

    def _double_quotes(self) -> list[Part]:
        line = self._line(self._at)
        self._at += 1
        parts: list[Part] = [Literal("", line, quoted=True)]
        parts += self._until('"')
        if self._at >= self._end:
            raise self._mistakes.fatal(line, "the double quote that opens here is never closed")
        self._at += 1
        return parts

    def _until(self, stop: str) -> list[Part]:
        """The parts up to a quote, or up to the end where `stop` is empty, by the rules inside quotes."""
        parts: list[Part] = []
        while self._at < self._end and self._text[self._at] != stop:
            line = self._line(self._at)
            character = self._text[self._at]
            if match := _QUOTED.match(self._text, self._at, self._end):
                parts.append(Literal(match[0], line, quoted=True))
                self._at = match.end()
            elif character == "$":
                parts.append(self._dollar(quoted=True))
            elif character == "`":
                parts.append(self._substitution(self._at, quoted=True))
            elif self._text.startswith("\\\n", self._at, self._end):
                self._at += 2
            elif character == "\\" and self._text[self._at + 1 : self._at + 2] in ('"', "\\", "$", "`"):
                parts.append(Literal(self._text[self._at + 1], line, quoted=True))
                self._at += 2
            else:
                parts.append(Literal(character, line, quoted=True))
                self._at += 1
        return parts

    def _dollar(self, quoted: bool) -> Part:
        at, line = self._at, self._line(self._at)
        after = self._text[at + 1 : min(at + 2, self._end)]
        if after == "(":
            close = self._closing(at + 1)
            if self._text[at + 2] == "(" and self._closing(at + 2) == close - 1:
                self._at = close + 1
                return Arithmetic(tuple(self._inside(at + 3, close - 1)._until("")), line, quoted)
            return self._substitution(at + 1, quoted)
        if after == "{":
            return self._braces(quoted)
        match = _NAME.match(self._text, at + 1, self._end) or _SPECIAL.match(self._text, at + 1, self._end)
        if match:
            self._at = match.end()
            return Variable(match[0], line, quoted)
        if after == "[" or (after in ("'", '"') and after and not quoted):
            self._at += 1
            return Unsupported(f"${after}", line, quoted)
        self._at += 1
        return Literal("$", line, quoted)

    def _braces(self, quoted: bool) -> Part:
        at, line = self._at, self._line(self._at)
        close = self._closing(at + 1)
        self._at = close + 1
        match = _NAME.match(self._text, at + 2, close)
        name, rest = (match[0], self._text[match.end() : close]) if match else ("", "")
        if match and not rest:
            return Variable(name, line, quoted)
        operator = ":-" if rest.startswith(":-") else "-"
        if match is None or not rest.startswith(operator):
            return Unsupported(self._text[at : close + 1], line, quoted)
        start, end, whole = match.end() + len(operator), close, quoted
        if end - start > 1 and self._text[start] == self._text[end - 1] == '"':
            start, end, whole = start + 1, end - 1, True
        if any(mark in self._text[start:end] for mark in "'\"\\"):
            return Unsupported(self._text[at : close + 1], line, quoted)
        default = tuple(attrs.evolve(part, quoted=whole) for part in self._inside(start, end)._until(""))
        return Variable(name, line, quoted, default, operator == ":-")

    def _substitution(self, opening: int, quoted: bool) -> Substitution:
        start, close = self._at, self._closing(opening)
        found = tuple(self._inside(opening + 1, close).statements())
        self._at = close + 1
        return Substitution(self._text[start : close + 1], self._line(start), quoted, found)

    def _inside(self, start: int, end: int) -> _Lexer:
        return _Lexer(self._text, self._newlines, self._mistakes, start, end, self._depth + 1)

    def _closing(self, opening: int) -> int:
        """Where the bracket or backtick that stands at `opening` is closed."""
        closers = {"(": ")", "{": "}", "`": "`", "'": "'", '"': '"', "$(": ")", "${": "}"}
        open_now = [closers[self._text[opening]]]
        at = opening + 1
        while match := _NESTING.search(self._text, at, self._end):
            found = match[0]
            # Between single quotes a backslash is a character like any other.
            at = match.start() + 1 if open_now[-1] == "'" else match.end()
            if open_now[-1] == "'":
                found = self._text[match.start()]
            if found == open_now[-1]:
                open_now.pop()
                if not open_now:
                    return match.start()
            elif open_now[-1] == "'" or (open_now[-1] == '"' and found in ("'", "(")):
                continue
            elif found in closers and found != "{":
                open_now.append(closers[found])
        line = self._line(opening)
        raise self._mistakes.fatal(line, f"the {self._text[opening]} that opens here is never closed")

    def _line(self, position: int) -> int:
        return bisect_left(self._newlines, position) + 1

"""JSON with `//` and `/* */` comments as data with lines, and what is wrong with text that is no JSON."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from pathlib import Path

from mm_config.importing.nodes import Mapping, Node, Scalar, Sequence
from mm_config.importing.parsers.text import Mistakes, read_text
from mm_config.schema.ranges import is_unicode
from mm_config.stored.parsing import MAX_DEPTH, shown_key

_SPACE = re.compile(r"(?:[ \t\n]++|//[^\n]*+|/\*(?s:.*?)\*/)*+")
_STRING = re.compile(r'"(?:[^"\\\n]++|\\[^\n])*+"')
_WORD = re.compile(r"[^\s,:\[\]{}\"'/]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_NAMES: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_PYTHON_NAMES = {"True": "true", "False": "false", "None": "null"}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity", "+Infinity", "nan", "inf", "-inf")
_LONGEST_SET = 60


def read_json(file: Path) -> Node:
    """The data of a JSON file, which may hold comments.

    Raises:
        UserError: The file can't be read (see `read_text`) or is no JSON. Each problem names the file and
            the line; a missing or trailing comma, a key given twice, a set and NaN are all found at once,
            other mistakes end the reading.
    """
    text = read_text(file)
    reader = _Reader(file, text.text)
    node = reader.root()
    reader.mistakes.check()
    return node


class _Reader:
    """A place in the text; every method reads on from there."""

    def __init__(self, file: Path, text: str) -> None:
        self.mistakes = Mistakes(file)
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def root(self) -> Node:
        if not self._next():
            raise self.mistakes.fatal(1, "is empty")
        node = self._value("", 0)
        if rest := self._next():
            what = "a second closing bracket" if rest in "]}" else self._found()
            raise self._fatal("", f"expected nothing after the end of the data, got {what}")
        return node

    def _next(self) -> str:
        """The next character that is neither space nor comment, or empty at the end."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        if self._text.startswith("/*", self._at):
            raise self._fatal("", "the comment that begins with /* has no */")
        return self._text[self._at : self._at + 1]

    def _value(self, path: str, depth: int) -> Node:
        character = self._next()
        line = self._line(self._at)
        if depth > MAX_DEPTH:
            raise self._fatal(path, f"nested deeper than {MAX_DEPTH} levels")
        if character == "{":
            return Node(self._mapping(path, depth), line)
        if character == "[":
            return Node(self._sequence(path, depth), line)
        if character == '"':
            return Node(self._string(path), line)
        return Node(self._word(path), line)

    def _mapping(self, path: str, depth: int) -> Mapping | Sequence:
        opened = self._at
        self._at += 1
        entries: dict[str, Node] = {}
        while (character := self._next()) != "}":
            if not entries and self._is_set(character):
                return self._set(path, opened, depth)
            if character != '"':
                raise self._fatal(path, f"expected a key in double quotes, got {self._found()}")
            line = self._line(self._at)
            key = self._string(path)
            where = f"{path}.{shown_key(key)}" if path else shown_key(key)
            if self._next() != ":":
                raise self._fatal(
                    path, f"expected a colon after the key {shown_key(key)}, got {self._found()}"
                )
            self._at += 1
            node = self._value(where, depth + 1)
            if key in entries:
                self._mistake(line, where, f"the key is given twice, first on line {entries[key].line}")
            entries[key] = Node(node.value, line)
            self._separator(path, "}", opened)
        self._at += 1
        return Mapping(tuple(entries.items()))

    def _sequence(self, path: str, depth: int) -> Sequence:
        opened = self._at
        self._at += 1
        items: list[Node] = []
        while self._next() != "]":
            items.append(self._value(f"{path}[{len(items)}]", depth + 1))
            self._separator(path, "]", opened)
        self._at += 1
        return Sequence(tuple(items))

    def _separator(self, path: str, closing: str, opened: int) -> None:
        """Reads the comma after a value, or stops before the closing bracket."""
        character = self._next()
        if character == closing:
            return
        if character == ",":
            line = self._line(self._at)
            self._at += 1
            if self._next() == closing:
                self._mistake(line, path, f"a comma before the closing {closing}, which JSON does not allow")
            return
        if character == '"' or (closing == "]" and character not in ("", "}", ":", "'", "/")):
            self._mistake(self._line(self._at), path, f"expected a comma before {self._found()}")
            return
        start = f"for the bracket of line {self._line(opened)}"
        raise self._fatal(path, f"expected a comma or {closing} ({start}), got {self._found()}")

    def _is_set(self, character: str) -> bool:
        """Whether a `{` that was just read is followed by a value and no colon."""
        pattern = _STRING if character == '"' else _WORD
        match = pattern.match(self._text, self._at)
        if match is None or match[0].startswith("..."):
            return False
        after = _SPACE.match(self._text, match.end())
        return after is not None and self._text[after.end() : after.end() + 1] in (",", "}")

    def _set(self, path: str, opened: int, depth: int) -> Sequence:
        items: list[Node] = []
        while self._next() != "}":
            items.append(self._value(f"{path}[{len(items)}]", depth + 1))
            self._separator(path, "}", opened)
        self._at += 1
        values = [item.value for item in items]
        written = " ".join(self._text[opened : self._at].split())
        spelling = json.dumps(values, default=str, ensure_ascii=False)
        if len(written) > _LONGEST_SET:
            written, spelling = "{...}", "[...]"
        if len(values) == 2 and all(type(value) is int for value in values):
            spelling += f' or {{"height": {values[0]}, "width": {values[1]}}}'
        message = f"{written} is a set, which JSON does not have; write {spelling}"
        self._mistake(self._line(opened), path, message)
        return Sequence(tuple(items))

    def _string(self, path: str) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise self._fatal(path, "the text that begins here has no closing quote on its line")
        try:
            text: str = json.loads(match[0])
        except json.JSONDecodeError as error:
            raise self._fatal(path, f"{shown_key(match[0])} is no JSON text: {error.msg}") from None
        if not is_unicode(text):
            message = f"holds a lone surrogate, which is no Unicode text: {shown_key(text)}"
            self._mistake(self._line(self._at), path, message)
        self._at = match.end()
        return text

    def _word(self, path: str) -> Scalar:
        match = _WORD.match(self._text, self._at)
        word = match[0] if match else ""
        line = self._line(self._at)
        if word in _NAMES:
            value = _NAMES[word]
        elif number := _NUMBER.fullmatch(word):
            value = self._number(word, path, line, whole=number[1] is None and number[2] is None)
        elif word in _NOT_FINITE:
            self._mistake(line, path, f"{word} is no JSON number, and no value here may be it")
            value = None
        elif word in _PYTHON_NAMES:
            self._mistake(line, path, f"{word} is written {_PYTHON_NAMES[word]} in JSON")
            value = None
        else:
            raise self._fatal(path, f"expected a value, got {self._found()}")
        self._at += len(word)
        return value

    def _number(self, word: str, path: str, line: int, whole: bool) -> int | float:
        try:
            value = int(word) if whole else float(word)
        except ValueError:
            self._mistake(line, path, "a number with more digits than can be read")
            return 0
        if not whole and not math.isfinite(value):
            self._mistake(line, path, f"{shown_key(word)} is larger than a number can be")
        return value

    def _found(self) -> str:
        """What stands here, for a message."""
        character = self._text[self._at : self._at + 1]
        if not character:
            return "the end of the file"
        if character == "'":
            return "a single quote; texts stand in double quotes"
        if character in "#/":
            return f"{character}; a comment begins with // or stands in /* */"
        if self._text.startswith("...", self._at):
            return "..., where an example was cut short; the whole file is needed"
        match = _STRING.match(self._text, self._at) or _WORD.match(self._text, self._at)
        return shown_key(match[0] if match else character)

    def _line(self, position: int) -> int:
        return bisect_left(self._newlines, position) + 1

    def _mistake(self, line: int, path: str, message: str) -> None:
        self.mistakes.add(line, f"{path}: {message}" if path else message)

    def _fatal(self, path: str, message: str) -> Exception:
        return self.mistakes.fatal(self._line(self._at), f"{path}: {message}" if path else message)

"""A launch script as statements of words; a word is a stretch of the text, whatever it would expand to."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

import attrs

from mm_config.importing.parsers.text import Mistakes

_BETWEEN = re.compile(r"(?:[ \t]|\\\n|#[^\n]*)+")
_OPERATOR = re.compile(r"\n|&>>|&>|&&|\|\||\|&|;;|[|&;()]|[0-9]*(?:<<<|<<|<&|<>|>>|>&|>\||<|>)")
_PLAIN = re.compile(r"(?:[^ \t\n|&;<>()\\'\"$`]|\\.?|\$'(?:[^'\\]|\\.)*'|\$(?![({']))+", re.DOTALL)
_NESTING = re.compile(r"\\.|['\"`(){}]|\$[({]", re.DOTALL)
_GOES_ON = ("|", "||", "&&")


@attrs.frozen
class Item:
    """A word, or an operator such as `|`, `2>&` or `(`."""

    text: str
    """As it is written."""
    start: int
    """Its first character's place in the text."""
    is_word: bool
    """Whether it is a word and no operator."""

    @property
    def end(self) -> int:
        """Where the text after it begins."""
        return self.start + len(self.text)


class ShellText:
    """The text of a script."""

    def __init__(self, text: str, mistakes: Mistakes) -> None:
        self.text = text
        self._mistakes = mistakes
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def line(self, at: int) -> int:
        """The line of a place, from 1."""
        return bisect_left(self._newlines, at) + 1

    def statements(self) -> Iterator[tuple[Item, ...]]:
        """Words and operators up to a semicolon or the end of a line, continuations included.

        One by one, so that reading can end before what is not understood.

        Raises:
            UserError: A quote, `$(`, `${` or backtick is never closed.
        """
        items: list[Item] = []
        at = 0
        while at < len(self.text):
            if match := _BETWEEN.match(self.text, at):
                at = match.end()
            elif (match := _OPERATOR.match(self.text, at)) is None:
                end = self._word_end(at)
                items.append(Item(self.text[at:end], at, True))
                at = end
            else:
                at = match.end()
                if match[0] not in ("\n", ";", ";;"):
                    items.append(Item(match[0], match.start(), False))
                elif items and (match[0] != "\n" or items[-1].is_word or items[-1].text not in _GOES_ON):
                    yield tuple(items)
                    items = []
        if items:
            yield tuple(items)

    def _word_end(self, at: int) -> int:
        while at < len(self.text):
            if match := _PLAIN.match(self.text, at):
                at = match.end()
            elif self.text[at] in "'\"`$":
                at = self.closing(at + (self.text[at] == "$")) + 1
            else:
                break
        return at

    def closing(self, opening: int) -> int:
        """Where the quote, bracket or backtick that stands at `opening` is closed.

        Raises:
            UserError: Nowhere.
        """
        closers = {"(": ")", "{": "}", "`": "`", "'": "'", '"': '"', "$(": ")", "${": "}"}
        open_now = [closers[self.text[opening]]]
        at = opening + 1
        while match := _NESTING.search(self.text, at):
            # Between single quotes a backslash is a character like any other.
            found = self.text[match.start()] if open_now[-1] == "'" else match[0]
            at = match.start() + len(found)
            if found == open_now[-1]:
                open_now.pop()
                if not open_now:
                    return match.start()
            elif open_now[-1] == "'" or (open_now[-1] == '"' and found in ("'", "(")):
                continue
            elif found in closers and found != "{":
                open_now.append(closers[found])
        message = f"the {self.text[opening]} that opens here is never closed"
        raise self._mistakes.fatal(self.line(opening), message)

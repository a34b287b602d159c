"""The text of a file that somebody else wrote, and mistakes in it with their lines."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from mm_config.durable.reading import read_bytes
from mm_config.schema.errors import Problem, UserError
from mm_config.stored.parsing import shown_key

MAX_BYTES = 16 * 2**20
"""A configuration has some kilobytes; a list of 100,000 clips about this much."""
MAX_PROBLEMS = 20
"""Reading stops after so many mistakes in one file."""

# YAML 1.2, section 5.1 (printable characters); JSON and shell scripts keep to them as well.
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@attrs.frozen
class Text:
    """A file's text without its byte order mark, every line ending in `\\n`."""

    file: Path
    """Where it was read."""
    text: str
    """The text."""
    marked: bool
    """It began with a byte order mark."""
    crlf: bool
    """Lines ended in `\\r\\n`."""


def read_text(file: Path, limit: int = MAX_BYTES) -> Text:
    """The text of a regular file (a link to one is followed).

    Raises:
        UserError: It is missing, a directory or a device, can't be read, is larger than `limit` bytes or
            is not printable UTF-8 text.
    """
    if "\0" in str(file):
        raise UserError(Problem(shown_key(str(file)), "a file's name can't hold the character U+0000"))
    try:
        data = read_bytes(file, limit)
    except OSError as error:
        raise UserError(Problem(str(file), f"can't be read: {error.strerror}")) from None
    marked = data.startswith(b"\xef\xbb\xbf")
    try:
        text = data[3 * marked :].decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, 3 * marked + error.start) + 1
        raise UserError(Problem(f"{file}:{line}", "is no UTF-8 text")) from None
    crlf = "\r\n" in text
    text = text.replace("\r\n", "\n")
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        message = f"holds the control character U+{ord(found[0]):04X}"
        raise UserError(Problem(f"{file}:{line}", message))
    return Text(file, text, marked, crlf)


@attrs.frozen
class Note:
    """Something in a file that was read over."""

    line: int
    """From 1."""
    text: str
    """What a person reads of it."""


class Mistakes:
    """What is wrong with one file; many mistakes leave the rest of it readable."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[Problem] = []

    def add(self, line: int, message: str) -> None:
        """Notes a mistake after which reading goes on.

        Raises:
            UserError: There are too many by now.
        """
        problem = Problem(f"{self._file}:{line}", message)
        if problem in self._found:
            return
        self._found.append(problem)
        if len(self._found) == MAX_PROBLEMS:
            message = f"reading stopped here, after {MAX_PROBLEMS} mistakes"
            raise UserError([*self._found, Problem(problem.path, message)])

    def fatal(self, line: int, message: str) -> UserError:
        """The error to raise for a mistake after which nothing can be read, with all earlier ones."""
        return UserError(dict.fromkeys([*self._found, Problem(f"{self._file}:{line}", message)]))

    def check(self) -> None:
        """Ends the reading.

        Raises:
            UserError: Mistakes were found.
        """
        if self._found:
            raise UserError(self._found)

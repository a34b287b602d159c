"""Pages of facts and of help: coloured on a terminal, plain in a pipe, where rich is not loaded."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mm_config.cli.scan import Option
from mm_config.console.output import console, is_live, print_lines
from mm_config.schema.errors import escaped
from mm_config.stored.text_width import width_of

Line: TypeAlias = "tuple[tuple[str, str], ...]"
"""Pieces of a line, each with its style (`bold`, `dim`, `cyan`) or an empty one."""

BLANK: Line = ()
MAX_WIDTH = 100
"""Longest line of running text, in columns."""


def print_page(lines: Iterable[Line]) -> None:
    """Prints lines, whole: a terminal wraps, a pipe does not."""
    if is_live():
        from rich.text import Text

        safe = ([(_safe(text), style) for text, style in line] for line in lines)
        page = (Text.assemble(*line, no_wrap=True) for line in safe)
        console().print(Text("\n").join(page), soft_wrap=True)
    else:
        print_lines(part for line in lines for part in unstyled(line).rstrip().split("\n"))


def _safe(text: str) -> str:
    """A piece of a line, whose own ends of lines are meant."""
    return "\n".join(map(escaped, text.split("\n")))


def unstyled(line: Line) -> str:
    """The text of a line."""
    return "".join(text for text, _ in line)


def page_width() -> int:
    """Columns of the terminal, or of the variable COLUMNS; 80 where neither is known."""
    return shutil.get_terminal_size().columns


def paragraph(text: str, indent: int = 0, hanging: int = 0, width: int | None = None) -> list[Line]:
    """Text wrapped to the page, indented; lines after the first by `hanging` more.

    A non-breaking space stays inside its line and is shown as a space.
    """
    first, later = " " * indent, " " * (indent + hanging)
    width = min(width or page_width(), MAX_WIDTH)
    wrapped = [first + text]
    if len(text) + indent > width or "\n" in text:
        wrapped = textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
        )
    return [((line.replace("\u00a0", " "), ""),) for line in wrapped]


def option_lines(title: str, options: Iterable[Option]) -> list[Line]:
    """A group of options, each with what it does."""
    lines = [BLANK, heading(title)]
    for option in options:
        value = "{" + ",".join(option.choices) + "}" if option.choices else option.metavar or ""
        lines += [flag_line([option.flag], value), *paragraph(option.help, indent=6)]
    return lines


def example_lines(examples: Iterable[tuple[str, str]]) -> list[Line]:
    """Commands to copy, each under what it does."""
    lines = [BLANK, heading("examples")]
    for command, about in examples:
        lines += [((f"  # {about}", "dim"),), ((f"  {command}", ""),)]
    return lines


def flag_line(flags: Sequence[str], value: str, note: str = "") -> Line:
    """A flag's spellings with what follows them; in lines of their own where the page is too narrow."""
    width, below = min(page_width(), MAX_WIDTH), "\n      "
    line = BLANK
    for between, before, beside in (
        (", ", " ", "  "),
        (f",{below}", " ", "  "),
        (f",{below}", below, "  "),
        (f",{below}", below, below),
    ):
        spellings = [piece for flag in flags for piece in ((between, ""), (flag, "cyan"))][1:]
        shown = value if before == " " else _after_commas(value, below, width)
        ending = (f"{before}{shown}" if value else "", "")
        line = (("  ", ""), *spellings, ending, (f"{beside}{note}" if note else "", "dim"))
        if all(width_of(part) <= width for part in unstyled(line).split("\n")):
            break
    return line


def _after_commas(text: str, below: str, width: int) -> str:
    """A list of choices in lines of its own, broken after commas where one line is too narrow."""
    lines = [""]
    for part in re.findall(r"[^,]+,?", text):
        if lines[-1] and width_of(below.strip("\n") + lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return below.join(lines)


def heading(title: str, about: str = "", note: str = "") -> Line:
    """A group's title, with what the group is."""
    return ((title, "bold"), (f"  {about}" if about else "", ""), (f"  {note}" if note else "", "dim"))

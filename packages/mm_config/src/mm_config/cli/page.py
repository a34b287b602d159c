"""Pages of help: bold headings and coloured flags on a terminal, plain text elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mm_config.cli.scan import Option
from mm_config.console.output import console

if TYPE_CHECKING:
    from rich.text import Text

MAX_WIDTH = 100


def print_lines(lines: Iterable[Text]) -> None:
    """Prints styled lines, whole: a terminal wraps, a pipe does not."""
    from rich.text import Text

    console().print(Text("\n").join(lines), soft_wrap=True)


def option_lines(title: str, options: Iterable[Option]) -> list[Text]:
    """A group of options, each with what it does."""
    lines = [blank(), heading(title)]
    for option in options:
        value = "{" + ",".join(option.choices) + "}" if option.choices else option.metavar or ""
        lines.append(flag_line([option.flag], value))
        lines.extend(paragraph(option.help, indent=6))
    return lines


def example_lines(examples: Sequence[tuple[str, str]]) -> list[Text]:
    """Commands to copy, each under what it does."""
    from rich.text import Text

    lines = [blank(), heading("examples")]
    for command, about in examples:
        lines.append(Text(f"  # {about}", style="dim"))
        lines.append(Text(f"  {command}"))
    return lines


def flag_line(flags: Sequence[str], value: str, note: str = "") -> Text:
    """A flag's spellings with what follows them; in lines of their own where the page is too narrow."""
    from rich.text import Text

    line, below = Text(), "\n      "
    for between, before, beside in (
        (", ", " ", "  "),
        (f",{below}", " ", "  "),
        (f",{below}", below, "  "),
        (f",{below}", below, below),
    ):
        spellings = Text(between).join(Text(flag, style="cyan") for flag in flags)
        ending = f"{before}{value}" if value else ""
        line = Text.assemble("  ", spellings, ending, (f"{beside}{note}" if note else "", "dim"))
        if all(part.cell_len <= _width() for part in line.split("\n")):
            break
    return line


def heading(title: str, about: str = "", note: str = "") -> Text:
    """A group's title, with what the group is."""
    from rich.text import Text

    return Text.assemble((title, "bold"), f"  {about}" if about else "", (f"  {note}" if note else "", "dim"))


def paragraph(text: str, indent: int, hanging: int = 0) -> list[Text]:
    """Text wrapped to the page, indented; lines after the first by `hanging` more.

    A non-breaking space stays inside its line and is shown as a space.
    """
    from rich.text import Text

    first, later = " " * indent, " " * (indent + hanging)
    width = _width()
    if len(text) + indent <= width and "\n" not in text:
        wrapped = [first + text]
    else:
        wrapped = textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
        )
    return [Text(line.replace("\u00a0", " ")) for line in wrapped]


def blank() -> Text:
    """An empty line."""
    from rich.text import Text

    return Text("")


def _width() -> int:
    return min(console().width, MAX_WIDTH)

"""Pages of facts: coloured on a terminal, plain in a pipe, where the library of colours is not loaded."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import TypeAlias

from mm_config.console.output import console, is_live

Line: TypeAlias = "tuple[tuple[str, str], ...]"
"""Pieces of a line, each with its style (`bold`, `dim`, `cyan`) or an empty one."""

BLANK: Line = ()
MAX_PROSE = 100
"""Longest line of running text, in columns."""


def print_page(lines: Iterable[Line]) -> None:
    """Prints lines, whole: a terminal wraps, a pipe does not."""
    if is_live():
        from rich.text import Text

        page = (Text.assemble(*line, no_wrap=True) for line in lines)
        console().print(Text("\n").join(page), soft_wrap=True)
    else:
        print("\n".join("".join(text for text, _ in line).rstrip() for line in lines))


def page_width() -> int:
    """Columns of the terminal, or of the variable COLUMNS; 80 where neither is known."""
    return shutil.get_terminal_size().columns


def prose(text: str, width: int, indent: int = 0) -> list[Line]:
    """Running text in lines."""
    margin = " " * indent
    lines = textwrap.wrap(
        text,
        min(width, MAX_PROSE),
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    )
    return [((line, ""),) for line in lines]

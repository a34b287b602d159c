"""What a launch script says, without having been run."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from mm_config.importing.facts import Fact
from mm_config.importing.parsers.text import Note


@attrs.frozen
class Script:
    """The variables of a launch script and the one command that it launches."""

    assignments: tuple[Fact, ...]
    """`A=b`, kind "shell variable", in the script's order; values are text after expansion.

    A variable that is set twice is here twice. Where only a run would know its value, that is its text in the
    script, and a note says so.
    """
    exports: tuple[Fact, ...]
    """`export A=b`, `export A` and `A=b torchrun ...`, kind "environment variable"."""
    launch: tuple[Fact, ...]
    """The launcher's and then the entry's flags, kind "shell flag", path `--lr`.

    The value is a text, a tuple of several texts, or True for a flag without a value; the line is where
    the flag's own text stands, which for `$GPT_ARGS` is inside that variable's value.
    """
    reached: Mapping[str, tuple[str, ...]]
    """The launch's flags whose values come from a variable, by its name."""
    program: str | None
    """`torchrun`, `python -m torch.distributed.run`, or None where the script launches nothing."""
    entry: str | None
    """`pretrain_sora.py`, or the module after `-m`."""
    line: int
    """Where the launch stands; 1 where there is none."""
    notes: tuple[Note, ...]
    """What was not read or is tolerated: `source`, `mkdir`, `2>&1 | tee ...`, CRLF, a byte order mark."""

"""`mm export`: a spec in the format of another system, as a package registered it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from mm_config.cli.scan import RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_text
from mm_config.durable.writing import write_text
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.installed import loaded, registered, registered_names
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import did_you_mean

GROUP = "mm.exporters"
"""Entry points `spec -> text`, named by their format; a spec that a format can't say is a UserError."""

OUT = Option("--out", "File to write; it must not exist (default: stdout).", "FILE", read=Path)
USAGE = Usage(
    "mm export FORMAT TARGET [--out FILE] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Write a spec in the format of another system.",
    f"Writes a spec in the format of another system. Packages bring formats by entry points `{GROUP}`.\n\n"
    f"{TARGET_HELP}",
    (OUT, RUNS_DIR),
    (("mm export FORMAT experiments/wan22_t2v.py --out wan22.json", "an experiment in a format, in a file"),),
    words=("FORMAT", "TARGET"),
)


def export(line: CommandLine) -> int:
    """Writes the target in the format."""
    name, target = line.words
    write = _format_named(name)
    (spec,) = read_targets(attrs.evolve(line, words=(target,)))
    text = write(spec)
    if (out := line.value(OUT)) is None:
        print_text(text)
    else:
        _write_new(out, text)
    return 0


def _format_named(name: str) -> Callable[[RootSpec], str]:
    if (entry := registered(GROUP, name)) is None:
        if not (formats := registered_names(GROUP)):
            raise UserError(f"no installed package registers a format (entry points {GROUP!r})")
        names = ", ".join(formats)
        raise UserError(f"expected a format ({names}), got {name!r}{did_you_mean(name, formats)}")
    write: Callable[[RootSpec], str] = loaded(entry, f"the format {name}")
    if not callable(write):
        raise UserError(f"the format {name} can't be loaded: {entry.value} is no function")
    return write


def _write_new(file: Path, text: str) -> None:
    if os.path.lexists(file):
        raise UserError(Problem(str(file), "exists and is not overwritten; name another file"))
    try:
        write_text(file, text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(Problem(str(file), f"can't be written: {reason}")) from None


VERB = Verb(USAGE, export)

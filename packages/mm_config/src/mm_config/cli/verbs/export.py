"""`mm export`: a spec in the format of another system, as a package registered it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import attrs

from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, RUNS_DIR, Option, scan
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.root import RootSpec
from mm_config.schema.suggestions import did_you_mean

GROUP = "mm.exporters"
"""Entry points `spec -> text`, named by their format; a spec that a format can't say is a UserError."""

OUT = Option("--out", "File to write; it must not exist (default: stdout).", "FILE")
USAGE = Usage(
    "mm export FORMAT TARGET [--out FILE] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    f"Writes a spec in the format of another system. Packages bring formats by entry points `{GROUP}`.\n\n"
    f"{TARGET_HELP}",
    (OUT, RUNS_DIR),
    (("mm export FORMAT experiments/wan22_t2v.py --out wan22.json", "an experiment in a format, in a file"),),
    tuple(sorted(entry_points(group=GROUP).names)),
)


def run(argv: Sequence[str]) -> int:
    """Write a spec in the format of another system."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    write = _format_named(line.words[0] if line.words else "")
    (spec,) = read_targets(attrs.evolve(line, words=line.words[1:]), USAGE, count=1)
    text = write(spec)
    if (out := line.value(OUT)) is None:
        print(text, end="")
    else:
        _write_new(Path(out), text)
    return 0


def _format_named(name: str) -> Callable[[RootSpec], str]:
    formats = entry_points(group=GROUP)
    if name in formats.names:
        return formats[name].load()
    if not formats:
        raise UserError(f"no installed package registers a format (entry points {GROUP!r})")
    given = f"got {name!r}{did_you_mean(name, formats.names)}" if name else "got none"
    raise UserError(f"expected a format ({', '.join(sorted(formats.names))}), {given} (usage: {USAGE.line})")


def _write_new(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError(Problem(str(file), "exists and is not overwritten; name another file")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(Problem(str(file), f"can't be written: {reason}")) from None

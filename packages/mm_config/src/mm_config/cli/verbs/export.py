"""`mm export`: a spec in the format of another system."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mm_config.cli.main import LOCATION
from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, RUNS_DIR, CommandLine, Option, scan
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.schema.diff import show_value
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.suggestions import did_you_mean

if TYPE_CHECKING:
    from mm_config.importing.telefuser.export import Export

SYSTEMS = ("telefuser",)
OUT = Option("--out", "File to write; it must not exist (default: stdout).", "FILE")
USAGE = Usage(
    "mm export telefuser TARGET [--out FILE] [--location NAME=PATH ...] [--spec.FIELD VALUE ...] "
    "[--runs-dir DIR]",
    "Writes an inference spec as TeleFuser's dump_config does, with both layers. What that format can't "
    "say is told on stderr: the arguments to give to the pipeline's call, and the fields that are "
    f"lost.\n\n{TARGET_HELP}",
    (OUT, LOCATION, RUNS_DIR),
    (
        ("mm export telefuser experiments/wan22_t2v.py", "the dump on stdout"),
        ("mm export telefuser experiments/wan22_t2v.py --out wan22.json", "the dump in a file"),
        (
            "mm export telefuser experiments/wan22_t2v.py --location "
            "Wan-AI/Wan2.2-T2V-A14B-Diffusers=/models/wan22",
            "with the paths of this machine",
        ),
    ),
    SYSTEMS,
)


def run(argv: Sequence[str]) -> int:
    """Write a spec in the format of another system."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    system = line.words[0] if line.words else ""
    if system not in SYSTEMS:
        given = f"got {system!r}{did_you_mean(system, SYSTEMS)}" if system else "got none"
        raise UserError(f"expected a system ({', '.join(SYSTEMS)}), {given} (usage: {USAGE.line})")
    _export_telefuser(_without_action(line))
    return 0


def _export_telefuser(line: CommandLine) -> None:
    from mm_config.importing.telefuser.export import export
    from mm_config.options.locations import load_locations, unused_names

    (spec,) = read_targets(line, USAGE, count=1)
    locations = load_locations(line.options.get(LOCATION.flag, ()))
    if unused := list(unused_names(locations, spec)):
        raise UserError(unused)
    made = export(spec, locations)
    if (out := line.value(OUT)) is None:
        print(made.text(), end="")
    else:
        _write(Path(out), made.text())
    for told in _told(made):
        print(told, file=sys.stderr)


def _without_action(line: CommandLine) -> CommandLine:
    return attrs.evolve(line, words=line.words[1:])


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError(Problem(str(file), "exists and is not overwritten; name another file")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(Problem(str(file), f"can't be written: {reason}")) from None


def _told(made: Export) -> list[str]:
    """What the dump does not say."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in made.arguments.items())
    lines = [f"not in a dump, give it to the pipeline's call: {arguments}"]
    lines += [
        f"lost: {change.path} = {show_value(change.old)}; the dump says {show_value(change.new)}"
        for change in made.lost
    ]
    lines += [
        f"no path: the dump names {name} instead; say where it lies by --location {name}=DIR"
        for name in made.unplaced
    ]
    if not made.tells_family:
        lines.append(
            "one way: no path of the dump names the release, so mm import telefuser can't tell its family"
        )
    return lines

"""`mm export`: a spec in the format of another system."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mm_config.cli.main import LOCATION
from mm_config.cli.scan import RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP, read_targets
from mm_config.cli.verb import Action, Usage, Verb
from mm_config.schema.diff import show_value
from mm_config.schema.errors import Problem, UserError

if TYPE_CHECKING:
    from mm_config.importing.telefuser.export import Export

OUT = Option("--out", "File to write; it must not exist (default: stdout).", "FILE")
USAGE = Usage(
    "mm export telefuser TARGET [--out FILE] [--location NAME=PATH ...] [--spec.FIELD VALUE ...] "
    "[--runs-dir DIR]",
    "Write a spec in the format of another system.",
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
    actions={"telefuser": Action(("TARGET",))},
)


def export_spec(line: CommandLine) -> int:
    """Writes the target in the format of a system."""
    from mm_config.importing.telefuser.export import export
    from mm_config.options.locations import load_locations, unused_names

    (spec,) = read_targets(attrs.evolve(line, words=line.words[1:]))
    locations = load_locations(line.values(LOCATION))
    if unused := list(unused_names(locations, spec)):
        raise UserError(unused)
    made = export(spec, locations)
    if (out := line.value(OUT)) is None:
        print(made.text(), end="")
    else:
        _write(Path(out), made.text())
    for told in _told(made):
        print(told, file=sys.stderr)
    return 0


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


VERB = Verb(USAGE, export_spec)

"""`mm export`: a spec, or all that it names, in the format of another system, as a package registered it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from mm_config.cli.line_targets import read_targets
from mm_config.cli.scan import RUNS_DIR, CommandLine, Option
from mm_config.cli.targets import TARGET_HELP, runs_dir_of
from mm_config.cli.verb import Usage, Verb
from mm_config.console.output import print_lines, print_text
from mm_config.durable.writing import write_text
from mm_config.options.run_options import RunOptions
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.installed import loaded, registered, registered_names
from mm_config.schema.suggestions import did_you_mean

GROUP = "mm.exporters"
"""Entry points `spec -> text`, named by their format; a spec that a format can't say is a UserError."""
FOLDERS = "mm.folder_exporters"
"""Entry points `(spec, folder, options) -> lines to print` of formats that are folders with weights."""

OUT = Option("--out", "File to write; it must not exist (default: stdout).", "FILE", read=Path)
USAGE = Usage(
    "mm export FORMAT TARGET [FOLDER] [--out FILE] [--spec.FIELD VALUE ...] [--runs-dir DIR]",
    "Write a spec in the format of another system.",
    f"Writes a spec in the format of another system. Packages bring formats by entry points `{GROUP}`, and "
    f"those that are folders with weights by `{FOLDERS}`.\n\n"
    "diffusers: a generation's experts with their adapters, its encoders and its scheduler, as a folder that "
    "diffusers' pipelines open. It must not exist; it is renamed when complete.\n\n"
    f"{TARGET_HELP}",
    (OUT, RUNS_DIR),
    (
        (
            "mm export FORMAT experiments/wan22_t2v.py --out wan22.json",
            "a spec in a format, in a file",
        ),
        ("mm export diffusers experiments/wan22_t2v.py wan22", "a generation as a pipeline of diffusers"),
    ),
    words=("FORMAT", "TARGET", "[FOLDER]"),
)


def export(line: CommandLine) -> int:
    """Writes the target in the format."""
    name, target, *folder = line.words
    group = FOLDERS if registered(FOLDERS, name) else GROUP
    write = _format_named(name, group)
    if group == FOLDERS and (not folder or line.has(OUT)):
        raise UserError(f"{name} is a folder: mm export {name} {target} FOLDER")
    if group == GROUP and folder:
        raise UserError(f"{name} is a text: mm export {name} {target} --out {folder[0]}")
    (spec,) = read_targets(attrs.evolve(line, words=(target,)))
    if group == FOLDERS:
        print_lines(write(spec, Path(folder[0]), RunOptions(runs_dir=runs_dir_of(line))))
        return 0
    text = write(spec)
    if (out := line.value(OUT)) is None:
        print_text(text)
    else:
        _write_new(out, text)
    return 0


def _format_named(name: str, group: str) -> Callable[..., Any]:
    if (entry := registered(group, name)) is None:
        formats = sorted({*registered_names(GROUP), *registered_names(FOLDERS)})
        names = ", ".join(formats) or "no installed package brings one"
        raise UserError(f"expected a format ({names}), got {name!r}{did_you_mean(name, formats)}")
    write: Callable[..., Any] = loaded(entry, f"the format {name}")
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

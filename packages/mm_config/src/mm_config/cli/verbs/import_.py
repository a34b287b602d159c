"""`mm import`: another tool's configuration as an experiment, and what became of each of its keys."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from mm_config.cli.scan import JSON, CommandLine, Option
from mm_config.cli.verb import MORE, Action, Usage, Verb
from mm_config.console.output import print_json, print_lines
from mm_config.durable.reading import require_regular
from mm_config.durable.writing import write_text
from mm_config.rules.carried_out import refusals
from mm_config.schema.errors import Problem, UserError, gathering
from mm_config.schema.root import RootSpec

OUT = Option(
    "--out",
    "The experiment to write, below experiments/.",
    "FILE.py",
    read=Path,
    missing="name the experiment to write, such as experiments/mine.py",
)
FORCE = Option("--force", "Overwrite files that exist.")
REPORT = Option("--report", "Write the report into a file too.", "FILE", read=Path)
UNKNOWN = Option("--allow-unknown", "Report keys that nothing reads, instead of refusing the files.")
USAGE = Usage(
    "mm import mindspeed FILE ... --out FILE.py | mm import telefuser FILE --out FILE.py",
    "Make another tool's configuration an experiment, and tell what became of each key.",
    "Reads another tool's configuration and writes an experiment, and prints what became of each key: "
    "mapped, derived from others, dead there, misspelt, in conflict or unknown. Nothing of the files is "
    "executed.\n\n"
    "mindspeed: model.json, inference_model.json, data.json, tools.json, FSDP2 or LayerZero YAML, native "
    "YAML, the launch script and a .txt of prompts of one run of MindSpeed-MM, as many of them as there "
    "are. telefuser: a file "
    "of dump_config().\n\n"
    "Exit status: 0 where the experiment is written, 2 for a mistake, with its file, line and key.",
    (OUT, REPORT, JSON, UNKNOWN, FORCE),
    (
        (
            "mm import mindspeed model.json data.json fsdp2.yaml pretrain.sh --out experiments/mine.py",
            "a training",
        ),
        ("mm import mindspeed inference_model.json inference.sh --out experiments/videos.py", "generation"),
        ("mm import telefuser pipeline_config.json --out experiments/videos.py", "TeleFuser's dump"),
    ),
    takes="files",
    actions={"mindspeed": Action(("FILE", MORE)), "telefuser": Action(("FILE",))},
)


def write_experiment(line: CommandLine) -> int:
    """Writes an experiment and prints the report."""
    out, report_file, tool = line.value(OUT), line.value(REPORT), line.words[0]
    spec, report = _imported(tool, line)
    report = attrs.evolve(report, cannot_run=tuple(map(str, refusals(spec))))
    page = "\n".join(report.lines(str(out))) + "\n"
    written = _experiment(spec, report, tool, out)
    _write(OUT.flag, out, written)
    if report_file is not None:
        _write(REPORT.flag, report_file, page)
    if line.has(JSON):
        print_json(report.to_json(str(out)))
    else:
        print_lines([f"written  {out}", *report.lines(str(out))])
    return 0


def _imported(tool: str, line: CommandLine) -> tuple[RootSpec, Any]:
    files = [Path(word) for word in line.words[1:]]
    if tool == "mindspeed":
        from mm_config.importing.mindspeed.importer import import_files

        return import_files(files, allow_unknown=line.has(UNKNOWN))
    from mm_config.importing.telefuser.importer import import_dump

    return import_dump(files[0], allow_unknown=line.has(UNKNOWN))


def _problems(line: CommandLine) -> list[Problem]:
    """What is wrong with the places and, with anything else, in the files; else they are read once."""
    problems = list(_place_problems(line.value(OUT), line.value(REPORT), force=line.has(FORCE)))
    if problems or line.problems or line.fields:
        with gathering(problems):
            _imported(line.words[0], line)
    return problems


def _place_problems(out: Path | None, report_file: Path | None, *, force: bool) -> Iterator[Problem]:
    if out is not None and (wrong := _wrong_name(out)):
        yield Problem(OUT.flag, wrong)
    for flag, file in ((OUT.flag, out), (REPORT.flag, report_file)):
        if file is not None and (wrong := _wrong_place(file, force)):
            yield Problem(flag, wrong)
    if out is not None and report_file is not None and report_file.resolve() == out.resolve():
        yield Problem(REPORT.flag, f"{str(out)!r} is the experiment's file; give another name")


def _wrong_name(out: Path) -> str:
    """Why an experiment can't have this name; empty where it can."""
    if out.suffix != ".py":
        return f"expected a Python file such as experiments/mine.py, got {str(out)!r}"
    if not out.stem.isidentifier():
        meant = re.sub(r"^(?=\d)|\W", "_", out.stem)
        rule = "the name of a Python file has letters, digits and _ and begins with no digit"
        return f"{rule}, got {out.name!r}; did you mean {meant}.py?"
    return ""


def _wrong_place(file: Path, force: bool) -> str:
    """Why a file can't be written; empty where nothing speaks against it."""
    try:
        if file.is_dir():
            return f"{str(file)!r} is a folder"
        if file.exists() and not force:
            return f"{str(file)!r} exists already; give another name, or --force"
        if file.exists():
            require_regular(file)
        if not file.parent.is_dir():
            return f"the folder {str(file.parent)!r} does not exist"
    except OSError as error:
        return f"{str(file)!r} can't be written: {error.strerror}"
    return ""


def _write(flag: str, file: Path, text: str) -> None:
    try:
        write_text(file, text)
    except OSError as error:
        raise UserError(Problem(flag, f"{str(file)!r} can't be written: {error.strerror}")) from None


def _experiment(spec: RootSpec, report: Any, tool: str, out: Path) -> str:
    """The experiment's source; its docstring says where it comes from and how to run it."""
    from mm_config.stored.source import to_source

    # A flag and its value stay on one line.
    text = report.command(str(out)).replace(" --location ", " --location\u00a0")
    wrapped = textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)
    run_it = " \\\n".join(f"    {piece}" for piece in wrapped).replace("\u00a0", " ")
    note = f"Imported by `mm import {tool}`. Run it by\n\n{run_it}\n\nThe ids of the spec were then"
    return to_source(spec, note=note)


VERB = Verb(USAGE, write_experiment, _problems)

"""`mm runs`: what was run here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, JSON, RUNS_DIR, CommandLine, Option, meant, scan
from mm_config.cli.targets import runs_dir_of
from mm_config.console import table
from mm_config.errors import Problem, UserError
from mm_config.runs.index import Index, open_index
from mm_config.runs.record import RESULT_FILE, RunRecord, RunStatus, read_json, to_row

NAME = Option("--name", "Only runs with this label.", "NAME")
STATUS = Option(
    "--status",
    "Only runs that have come this far.",
    "STATUS",
    choices=tuple(status.value for status in RunStatus),
)
USAGE = Usage(
    "mm runs [list | find TEXT | show RUN] [--name NAME] [--status STATUS] [--json] [--runs-dir DIR]",
    "list: all runs, newest first. find: the runs whose id or label is TEXT, or whose spec_hash or "
    "exact_hash starts with it. show: all that is known of one run and what it left behind; RUN is what "
    "find takes, and the newest match is shown.",
    (NAME, STATUS, JSON, RUNS_DIR),
    (
        ("mm runs", "what was run here"),
        ("mm runs list --name tiny_high --status finished", "the finished runs of one experiment"),
        ("mm runs find 7f3a91", "the runs of a spec"),
        ("mm runs show 7f3a91", "its newest run"),
    ),
)


def run(argv: Sequence[str]) -> int:
    """List, find and show runs."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    problems = [*line.problems]
    problems.extend(
        Problem(given.flag, f"unknown flag{meant(given.flag, [option.flag for option in USAGE.options])}")
        for given in line.fields
    )
    action, *arguments = line.words or ("list",)
    expected = {"list": 0, "find": 1, "show": 1}
    if action not in expected:
        problems.append(Problem("", f"expected list, find or show, got {action!r}{meant(action, expected)}"))
    elif len(arguments) != expected[action]:
        problems.append(
            Problem("", f"mm runs {action} takes {expected[action]} argument(s), got {len(arguments)}")
        )
    if problems:
        raise UserError(problems)
    index = open_index(runs_dir_of(line))
    found = _selected(index, line, arguments)
    if arguments and not found:
        raise UserError(Problem(arguments[0], f"no run in {index.runs_dir} has this id, label or hash"))
    if action == "show":
        _show(index, found[0], line.has(JSON))
    elif line.has(JSON):
        print(json.dumps([to_row(record) for record in found], indent=2, ensure_ascii=False))
    elif found:
        _print_table(found)
    else:
        print(f"no runs in {index.runs_dir}")
    return 0


def _selected(index: Index, line: CommandLine, arguments: Sequence[str]) -> Sequence[RunRecord]:
    name, status = line.value(NAME), line.value(STATUS)
    found = index.find(arguments[0]) if arguments else index.list()
    return [
        record for record in found if name in (None, record.name) and status in (None, record.status.value)
    ]


def _print_table(found: Sequence[RunRecord]) -> None:
    rows = [
        (
            record.path,
            record.kind,
            record.status.value,
            record.spec_hash[:12],
            record.exact_hash[:12],
            record.started_at[:19].replace("T", " "),
        )
        for record in found
    ]
    table("runs", rows, header=("run", "kind", "status", "spec", "exact", "started (UTC)"))


def _show(index: Index, record: RunRecord, as_json: bool) -> None:
    folder = index.folder(record)
    result: dict[str, Any] = {}
    if (folder / RESULT_FILE).is_file():
        result = read_json(folder / RESULT_FILE)
    if as_json:
        report = {**to_row(record), "folder": str(folder), "result": result}
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    known = {**to_row(record), "folder": folder}
    lines = [f"{name:<12} {value}" for name, value in known.items() if value is not None]
    files = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()) if folder.is_dir() else []
    lines.append(f"{'files':<12} {'  '.join(files) or 'none: the folder is gone'}")
    for name, value in result.items():
        text = json.dumps(value, ensure_ascii=False)
        lines.append(f"result.{name} {text if len(text) <= 80 else f'({len(value)} items)'}")
    print("\n".join(lines))

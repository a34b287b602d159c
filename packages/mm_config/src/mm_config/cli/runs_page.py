"""What `mm runs` prints of runs: a table of many, a page of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mm_config.console import table
from mm_config.runs.index import Index
from mm_config.runs.record import RESULT_FILE, RunRecord, read_json, to_row
from mm_config.runs.stored import read_stored

SHORT = 12
"""Digits of a hash that are shown."""
_WIDTH = 14


def print_list(found: Sequence[RunRecord], total: int) -> None:
    """Prints a table of runs, of which there are `total`."""
    rows = [
        (
            record.path,
            record.kind,
            record.status.value,
            record.spec_hash[:SHORT],
            record.exact_hash[:SHORT],
            record.started_at[:19].replace("T", " "),
        )
        for record in found
    ]
    title = "runs" if len(found) == total else f"runs: the newest {len(found)} of {total}"
    table(title, rows, header=("run", "kind", "status", "spec", "exact", "started (UTC)"))


def print_run(index: Index, record: RunRecord) -> None:
    """Prints all that is known of a run, and what it left behind."""
    folder = index.folder(record)
    lines = [
        f"{name:<{_WIDTH}} {value}"
        for name, value in {**to_row(record), "folder": folder}.items()
        if value is not None
    ]
    if index.is_here(record):
        files = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
        lines.append(f"{'files':<{_WIDTH}} {'  '.join(files)}")
        lines += [f"{'unreadable':<{_WIDTH}} {problem}" for problem in read_stored(folder).problems]
    else:
        lines.append(f"{'files':<{_WIDTH}} none: the folder is not here")
    for name, value in result_of(index, record).items():
        text = json.dumps(value, ensure_ascii=False)
        lines.append(f"result.{name} {text if len(text) <= 80 else f'({len(value)} items)'}")
    print("\n".join(lines))


def run_report(index: Index, record: RunRecord) -> dict[str, Any]:
    """The same as a JSON object."""
    folder = index.folder(record)
    problems = read_stored(folder).problems if index.is_here(record) else ()
    return {
        **to_row(record),
        "folder": str(folder),
        "unreadable": [str(problem) for problem in problems],
        "result": result_of(index, record),
    }


def result_of(index: Index, record: RunRecord) -> dict[str, Any]:
    """What a run came to; empty where it has not finished or is not here."""
    file = index.folder(record) / RESULT_FILE
    return read_json(file) if file.is_file() and index.is_here(record) else {}

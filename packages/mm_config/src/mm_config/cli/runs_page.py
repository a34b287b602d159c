"""What `mm runs` prints of runs: a table of many, a page of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mm_config.console.output import print_lines, table
from mm_config.runs.index import Index
from mm_config.runs.inputs import read_inputs
from mm_config.runs.provenance import read_provenance
from mm_config.runs.record import PROVENANCE_FILE, RunRecord, read_record, read_result, to_row
from mm_config.runs.stored import spec_problems
from mm_config.schema.errors import Problem, gathering
from mm_config.schema.types import is_list

SHORT = 12
"""Digits of a hash that are shown."""
REPEATED = ("kind", "spec_hash", "exact_hash", "made_of")
"""What a result repeats of the record."""


def print_list(found: Sequence[RunRecord], total: int) -> None:
    """Prints a table of runs, of which there are `total`."""
    rows = [
        (
            record.path,
            record.kind if record.requests_hash is None else f"{record.kind} (requests)",
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
    row = {**to_row(record), "made_of": record.made_of or "content not recorded"}
    facts: list[tuple[str, Any]] = [*row.items(), ("folder", folder)]
    problems: list[Problem] = []
    if index.is_here(record):
        files = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
        facts.append(("files", "  ".join(files)))
        problems += spec_problems(folder, record)
        with gathering(problems):
            facts += content_of(index, record)
        with gathering(problems):
            # The versions of all packages would hide the rest; provenance.json and `compare` have them.
            facts += [fact for fact in origin_of(index, record) if not fact[0].startswith("package.")]
    elif folder.is_dir():
        with gathering(problems):
            facts.append(("files", f"none: {read_record(folder, index.runs_dir).uid} is another run"))
    else:
        facts.append(("files", "none: the folder is not here"))
    with gathering(problems):
        result = result_of(index, record)
        facts += [(f"result.{name}", _short(value)) for name, value in result.items() if name not in REPEATED]
    facts += [("problem", problem) for problem in problems]
    width = max(len(name) for name, value in facts if value is not None)
    print_lines(f"{name:<{width}}  {value}" for name, value in facts if value is not None)


def run_report(index: Index, record: RunRecord) -> dict[str, Any]:
    """The same as a JSON object."""
    folder = index.folder(record)
    problems = [*spec_problems(folder, record)] if index.is_here(record) else []
    result: dict[str, Any] = {}
    with gathering(problems):
        result = result_of(index, record)
    return {
        **to_row(record),
        "folder": str(folder),
        "problems": [str(problem) for problem in problems],
        "result": result,
    }


def _short(value: Any) -> str:
    """A value of a result on a line; a long list or object by its length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 or isinstance(value, str) else f"({len(value)} items)"


def result_of(index: Index, record: RunRecord) -> dict[str, Any]:
    """What a run came to; empty where it has not finished or is not here."""
    return read_result(index.folder(record)) if index.is_here(record) else {}


def content_of(index: Index, record: RunRecord) -> Iterator[tuple[str, str]]:
    """What a run was made of: each input's digest, name and place, or the run that it was taken from."""
    inputs = read_inputs(index.folder(record)) if index.is_here(record) else None
    for path, one in (inputs or {}).items():
        known = (one.name, one.details.get("run"), one.details.get("path"))
        yield f"content.{path}", "  ".join([one.digest[:SHORT], *filter(None, known)])


def origin_of(index: Index, record: RunRecord) -> Iterator[tuple[str, Any]]:
    """The code, the machine and the versions that a run had."""
    file = index.folder(record) / PROVENANCE_FILE
    if not os.path.lexists(file) or not index.is_here(record):
        return
    provenance = read_provenance(file)
    for repository in provenance.get("git", ()):
        commit = str(repository.get("commit"))[:SHORT]
        name = Path(repository.get("root", "")).name
        yield f"git {name}", f"{commit} with changes" if repository.get("dirty") else commit
    for name in ("devices", "python", "platform"):
        if value := provenance.get(name):
            yield name, ", ".join(map(str, value)) if is_list(value) else value
    for name, value in provenance.get("launcher", {}).items():
        yield name, value
    for name, value in provenance.get("ops", {}).items():
        yield f"op.{name}", value
    for name, value in provenance.get("packages", {}).items():
        yield f"package.{name}", value

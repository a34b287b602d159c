"""JSON-lines manifests: one object with `path` and `caption` per line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mm_config.durable import open_regular, outside
from mm_config.schema import Problem, UserError
from mm_data.records import Dataset, Record

SHOWN_PROBLEMS = 20
_MAX_LINE_BYTES = 2**24
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_manifest(path: Path) -> Dataset:
    """Reads and checks a whole manifest.

    Paths are relative to the manifest's folder and stay inside it, links included. A file that isn't there is
    no error here: it is a bad clip when its turn comes. Blank lines and further keys are ignored.

    Raises:
        UserError: No manifest, one that can't be read, no clips, or wrong lines: all of them, each with its
            number.
    """
    if not path.is_file():
        what = "is a folder, expected a JSON-lines file" if path.is_dir() else "no such manifest"
        raise UserError(Problem(str(path), what))
    root = path.parent.resolve()
    records: list[Record] = []
    problems: list[Problem] = []
    digest = hashlib.sha256()
    for number, line in _lines(path):
        entry = _parse(line)
        found = list(_entry_problems(entry, root))
        problems += [Problem(f"{path}:{number}", message) for message in found]
        if found:
            continue
        records.append(Record((root / entry["path"]).resolve(), entry["caption"], number))
        digest.update(json.dumps([entry["path"], entry["caption"]]).encode() + b"\n")
    if problems:
        raise UserError(capped(problems, str(path)))
    if not records:
        raise UserError(Problem(str(path), "the manifest lists no clips"))
    return Dataset(root, tuple(records), digest.hexdigest(), manifest=path)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > _MAX_LINE_BYTES:
                    problem = f"a line has more than {_MAX_LINE_BYTES // 2**20} MiB"
                    raise UserError(Problem(f"{path}:{number}", problem))
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(Problem(str(path), f"the manifest can't be read: {error.strerror}")) from error


def _parse(line: bytes) -> Any:
    """The JSON value of a line, or the error that says why there is none."""
    try:
        return json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return entry


def _entry_problems(entry: Any, root: Path) -> Iterator[str]:
    if isinstance(entry, json.JSONDecodeError):
        yield f"not JSON: {entry.msg} at column {entry.colno}"
    elif isinstance(entry, UnicodeDecodeError):
        yield f"not UTF-8: {entry.reason} at byte {entry.start}"
    elif isinstance(entry, Exception):
        yield f"not JSON that can be read: {entry}"
    elif not isinstance(entry, dict):
        yield f'expected an object with "path" and "caption", got {json.dumps(entry)[:60]}'
    else:
        for key in ("path", "caption"):
            if key not in entry:
                yield f'the key "{key}" is missing'
            elif not isinstance(entry[key], str):
                yield f'"{key}" must be a string, got {json.dumps(entry[key])[:60]}'
            elif LONE_SURROGATE.search(entry[key]):
                yield f'"{key}" holds half of a surrogate pair, which is no character'
            elif key == "path" and (message := _path_problem(entry["path"], root)):
                yield f"{message}: {entry['path'][:200]!r}"


def _path_problem(path: str, root: Path) -> str | None:
    try:
        if problem := outside(path, root):
            return f"{problem}; paths stay inside the manifest's folder"
        return "not a regular file" if (root / path).exists() and not (root / path).is_file() else None
    except OSError as error:
        return f"not a path: {error.strerror}"


def capped(problems: list[Problem], where: str) -> list[Problem]:
    """The first problems, and how many more there are."""
    more = len(problems) - SHOWN_PROBLEMS
    return (
        problems if more <= 0 else [*problems[:SHOWN_PROBLEMS], Problem(where, f"and {more} more problems")]
    )

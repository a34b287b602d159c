"""What a training logged: read by step, compared bit by bit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mm_config.durable.reading import read_bytes
from mm_config.reproducing.difference import Difference, changed_numbers
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.types import is_dict

COMPARED = ("loss", "grad_norm", "lr")
"""Numbers that the mathematics decides; the others of a line are times."""

_MOST_BYTES = 4 * 1024**3

Line = Mapping[str, Any]


def read_metrics(run_dir: Path) -> Mapping[int, Line]:
    """The lines of a run's metrics.jsonl by step; a later line adds to its step, and wins.

    A last line without its end was being written when the process was killed, and is passed over.

    Raises:
        UserError: The file can't be read, or a line is no JSON object with a step.
    """
    file = run_dir / "metrics.jsonl"
    if not os.path.lexists(file):
        return {}
    try:
        lines = read_bytes(file, _MOST_BYTES).decode().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(file), f"can't be read: {error}")) from error
    whole = [line for line in lines if line.endswith("\n")]
    read = [_read(line, f"{file}:{number}") for number, line in enumerate(whole, 1)]
    steps: dict[int, dict[str, Any]] = {}
    for line in read:
        steps.setdefault(line["step"], {}).update(line)
    return steps


def metric_differences(step: int, old: Line | None, new: Line | None) -> Iterator[Difference]:
    """The compared numbers of a step that are not the same float to the last bit."""
    if old is None or new is None:
        if old is not new:
            was, is_now = ("none" if line is None else "logged" for line in (old, new))
            yield Difference(f"step {step}", "metrics", was, is_now)
        return
    before, after = ({name: line.get(name, "none") for name in COMPARED} for line in (old, new))
    yield from changed_numbers(f"step {step}", before, after)


def _read(text: str, where: str) -> Line:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(where, f"is no JSON: {error}")) from error
    if not is_dict(line) or type(line.get("step")) is not int:
        raise UserError(Problem(where, "is no JSON object with a whole number as its step"))
    return line

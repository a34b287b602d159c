"""metrics.jsonl: lines that a run adds, and as a resumed run finds it, with whatever a crash made of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mm_config.durable.reading import read_bytes, require_regular
from mm_config.durable.writing import place_aside, set_aside, write_bytes
from mm_config.schema.types import is_dict

MOST_BYTES = 2**30
"""Of a file of metrics: seven million steps."""


def append(path: Path, line: str) -> None:
    """Adds a line to a file. Raises OSError where it can't be written or is none."""
    if path.exists():
        require_regular(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def rewind(file: Path, step: int, before: int | None = 0) -> list[str]:
    """Leaves the lines of the steps up to one.

    A file with something else than lines in it, or beyond all size, is kept beside its place, as is a folder
    or a pipe there. The line that
    a process was writing when it was killed is of a later step: those up to a checkpoint were on the disk
    before it.

    Args:
        file: The run's metrics.jsonl.
        step: The last step whose lines stay.
        before: Steps of the training that the run goes on with, whose lines are in that one's file; None
            where that isn't known: then the file is taken to begin where it should.

    Returns:
        What is damaged and what is lost, in words.

    Raises:
        OSError: It can't be read or written.
    """
    said: list[str] = []
    if os.path.lexists(file) and not file.is_file():
        said.append(f"{file} is no file; what is there is kept as {set_aside(file).name}")
    if file.exists() and file.stat().st_size > MOST_BYTES:
        said.append(f"{file} has more than {MOST_BYTES:,} bytes; it is kept as {set_aside(file).name}")
    content = read_bytes(file, MOST_BYTES) if file.exists() else b""
    *whole, torn = content.split(b"\n")
    steps = [_step_of(line) for line in whole]
    kept = [line for line, number in zip(whole, steps, strict=True) if number is not None and number <= step]
    if before is None:
        before = min((number for number in steps if number is not None), default=step + 1) - 1
    lost = sorted({*range(before + 1, step + 1)}.difference(steps))
    if None in steps or (torn and lost):
        write_bytes(aside := place_aside(file), content)
        said.append(f"{file} is damaged; as it was it is kept as {aside.name}")
    if content:
        write_bytes(file, b"".join(line + b"\n" for line in kept))
    if lost:
        said.append(f"{file} has lost {len(lost)} of {step - before} steps, the first is step {lost[0]}")
    return said


def _step_of(line: bytes) -> int | None:
    """The step that a line is of; None where it is damaged."""
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = content.get("step") if is_dict(content) else None
    return number if type(number) is int else None

"""What is known of a run at a glance: a row of the index, and `status.json` in the run folder."""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Any

import attrs

from mm_config.errors import Problem, UserError
from mm_config.typing_checks import is_dict

STATUS_FILE = "status.json"
RESULT_FILE = "result.json"


class RunStatus(enum.Enum):
    """How far a run has come."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Stopped by a signal or with its process; can be resumed."""


@attrs.frozen(kw_only=True)
class RunRecord:
    """One run. Times are UTC in ISO 8601, so that their order as text is their order in time."""

    uid: str
    """32 hex digits, drawn when the run starts; keeps runs of several machines apart."""
    path: str
    """The run folder relative to the runs folder, with forward slashes; also the run's id."""
    name: str
    """Label of the run."""
    kind: str
    """Wire tag of the spec's class."""
    spec_hash: str
    """64 hex digits."""
    exact_hash: str
    """64 hex digits."""
    status: RunStatus
    host: str
    """Machine on which it was started."""
    started_at: str
    finished_at: str | None = None
    """When it finished, failed or was interrupted."""
    reason: str | None = None
    """Why it failed."""


def to_row(record: RunRecord) -> dict[str, str | None]:
    """The record as plain values by field name."""
    return {**attrs.asdict(record), "status": record.status.value}


def from_row(row: dict[str, Any]) -> RunRecord:
    """The inverse of `to_row`."""
    values: dict[str, Any] = {**row, "status": RunStatus(row["status"])}
    return RunRecord(**values)


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes `status.json`: the record without its path, which the folder's place tells."""
    write_json(
        folder / STATUS_FILE, {name: value for name, value in to_row(record).items() if name != "path"}
    )


def read_record(folder: Path, runs_dir: Path) -> RunRecord:
    """Reads the record of a run folder under `runs_dir`.

    Raises:
        UserError: Its `status.json` is no record.
    """
    file = folder / STATUS_FILE
    row = {**read_json(file), "path": folder.relative_to(runs_dir).as_posix()}
    try:
        return from_row(row)
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(Problem(str(file), f"is no record of a run: {error}")) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        UserError: The file can't be read, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    except ValueError as error:
        raise UserError(Problem(str(path), f"is no JSON: {error}")) from error
    if not is_dict(content):
        raise UserError(Problem(str(path), f"holds no JSON object but a {type(content).__name__}"))
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is either whole or absent, also after a power cut.

    Raises:
        ValueError: A number is not finite; JSON has no such numbers.
    """
    replace_file(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Puts a whole new text in the place of a file, or leaves what was there."""
    staged = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # A file name in no encoding, such as in an argv, becomes a JSON escape.
    with staged.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

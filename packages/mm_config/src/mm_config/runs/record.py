"""What is known of a run at a glance: a row of the index, and `status.json` in the run folder."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from mm_config.durable.reading import outside
from mm_config.schema.errors import Problem, UserError
from mm_config.stored.json_files import read_json, write_json

SPEC_FILE = "spec.json"
STATUS_FILE = "status.json"
RESULT_FILE = "result.json"
REQUESTS_FILE = "requests.json"
PROVENANCE_FILE = "provenance.json"

MAX_LENGTHS = {
    "uid": 32,
    "path": 512,
    "name": 255,
    "kind": 255,
    "spec_hash": 64,
    "exact_hash": 64,
    "status": 16,
    "host": 255,
    "started_at": 40,
    "finished_at": 40,
    "spec_hash_now": 64,
    "exact_hash_now": 64,
    "requests_hash": 64,
    "made_of": 64,
}
"""Most characters of each text that a database has to hold; a reason has no limit."""
_OBJECT: Any = dict
_RESULT = {
    "checkpoint": str | None,
    "steps": int,
    "videos": [{"name": str, "path": str, "frames": str, "batch": int}],
    "experts": {"": {"run_dir": str | None}},
    "score": _OBJECT | None,
}
"""What is relied on in a result."""
_NOT_STORED = ("path", "spec_hash_now", "exact_hash_now")


class RunStatus(enum.Enum):
    """How far a run has come."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Stopped as asked, by a signal or with its process; can be resumed."""


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
    """64 hex digits, as they were when the run started."""
    exact_hash: str
    """64 hex digits, as they were when the run started."""
    status: RunStatus
    """How it is."""
    host: str
    """Machine on which it was started."""
    started_at: str
    """When it was opened."""
    finished_at: str | None = None
    """When it finished, failed or was interrupted."""
    reason: str | None = None
    """Why it failed."""
    spec_hash_now: str | None = None
    """The spec_hash of the stored payload today, where a class has a newer schema since and it is another."""
    exact_hash_now: str | None = None
    """The exact_hash of the stored payload today, on the same condition."""
    requests_hash: str | None = None
    """What was made in place of the videos that the spec asks for, see `requests_hash`; None made those."""
    made_of: str | None = None
    """What the run was made of, 64 hex digits; None where its content was not recorded."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """Every hash that the run is found by: those of its start, their equals of today, and `made_of`."""
        known = (self.spec_hash, self.exact_hash, self.spec_hash_now, self.exact_hash_now, self.made_of)
        return tuple(dict.fromkeys(filter(None, known)))


def to_row(record: RunRecord) -> dict[str, str | None]:
    """The record as plain values by field name."""
    return {**attrs.asdict(record), "status": record.status.value}


def from_row(row: Mapping[str, Any]) -> RunRecord:
    """The inverse of `to_row`."""
    values: dict[str, Any] = {**row, "status": RunStatus(row["status"])}
    return RunRecord(**values)


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes `status.json`: the record without its path, which the folder's place tells, and without
    the hashes of today, which the payload tells."""
    write_json(
        folder / STATUS_FILE,
        {name: value for name, value in to_row(record).items() if name not in _NOT_STORED},
    )


def read_record(folder: Path, runs_dir: Path) -> RunRecord:
    """Reads the record of a run folder under `runs_dir`; a run with a result has finished, whatever it says.

    Raises:
        UserError: Its `status.json` is no record.
    """
    file, result = folder / STATUS_FILE, folder / RESULT_FILE
    row = {**read_json(file), "path": folder.relative_to(runs_dir).as_posix()}
    try:
        record = from_row(row)
        for name, value in to_row(record).items():
            _check_text(name, value, optional=attrs.fields_dict(RunRecord)[name].default is None)
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(Problem(str(file), f"is no record of a run: {error}")) from error
    if record.status is RunStatus.FINISHED or not result.exists():
        return record
    ended = datetime.fromtimestamp(result.stat().st_mtime, UTC).isoformat(timespec="microseconds")
    return attrs.evolve(record, status=RunStatus.FINISHED, finished_at=ended, reason=None)


def uid_in(folder: Path) -> Any:
    """The uid of the run that lies in a folder. Raises UserError where its status can't be read."""
    return read_json(folder / STATUS_FILE).get("uid")


def is_storable(text: str) -> bool:
    """Whether every database can hold a text: no NUL, no lone surrogate."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def _check_text(name: str, value: Any, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text but {value!r}")
    if name in MAX_LENGTHS and (len(value) > MAX_LENGTHS[name] or not is_storable(value)):
        raise ValueError(f"{name} is no text of at most {MAX_LENGTHS[name]} characters: {value[:80]!a}")


def read_result(folder: Path) -> dict[str, Any]:
    """What the run of a folder came to; empty where it has not finished.

    Raises:
        UserError: The file can't be read, holds something else, or names a checkpoint outside the folder.
    """
    file = folder / RESULT_FILE
    if not os.path.lexists(file):
        return {}
    result = read_json(file, _RESULT)
    named = result.get("checkpoint")
    if named is not None and (problem := outside(named, folder)):
        raise UserError(Problem(str(file), f"checkpoint: {problem}: {named!r}"))
    return result

"""A run folder, `runs/<name>/<date>-<hash12>-<n>/`: the only place that opens, writes and ends one.

It holds spec.json (the full payload), requests.json where it makes other videos than the spec's,
provenance.json with a patch of uncommitted code, inputs.json (the content that the spec's fields named),
status.json, metrics.jsonl, checkpoints/, samples/ and, at the end, result.json.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from mm_config.console.output import passing_over
from mm_config.content.inputs import Input
from mm_config.durable.leftovers import remove_abandoned, stages
from mm_config.durable.writing import sync
from mm_config.npu.exporting import variables_of
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.rules.whole import label_problems
from mm_config.runs import lock
from mm_config.runs.database import UnusableIndex, indexing
from mm_config.runs.index import open_index
from mm_config.runs.inputs import INPUTS_FILE, write_inputs
from mm_config.runs.logged import append, rewind
from mm_config.runs.lookup import folder_to_resume, is_of_this_launch, why_another
from mm_config.runs.provenance import NO_OPS, provenance, utc_now, write_provenance
from mm_config.runs.record import (
    PROVENANCE_FILE,
    RESULT_FILE,
    SPEC_FILE,
    STATUS_FILE,
    RunRecord,
    RunStatus,
    read_record,
    write_record,
)
from mm_config.runs.requests import request_inputs, requests_hash, write_requests
from mm_config.runs.staging import placed, staged
from mm_config.runs.stored import spec_problems
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import Problem, SpecError, UserError, prefixed
from mm_config.schema.identity import exact_hash, spec_hash
from mm_config.schema.root import RootSpec
from mm_config.stored.files import dump, load
from mm_config.stored.json_files import write_json

HASH_DIGITS = 12


@attrs.frozen
class Run:
    """An open run. Folders below it are made by whoever writes into them."""

    path: Path
    """The run folder."""
    spec: RootSpec
    """What is run."""
    record: RunRecord
    """What the index knew of it when it was opened."""

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints_dir(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def samples_dir(self) -> Path:
        """Generated videos and pictures."""
        return self.path / "samples"

    @property
    def result_path(self) -> Path:
        """What the run came to; exists once it has finished."""
        return self.path / RESULT_FILE

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Appends a line to metrics.jsonl.

        Raises:
            ValueError: A number is not finite. JSON has no such numbers, and a loss that is one ends a
                run: what to say of it is the caller's.
        """
        line = json.dumps(metrics, allow_nan=False, ensure_ascii=False) + "\n"
        with _writing(self.path):
            append(self.metrics_path, line)

    def sync_metrics(self) -> None:
        """Waits until the disk holds what was logged: before the state of a step is, its line is."""
        with _writing(self.path):
            sync(self.metrics_path)
            sync(self.path)

    def rewind_metrics(self, step: int, before: int | None = 0) -> list[str]:
        """As `logged.rewind`: drops the lines after a step, which a resumed run logs again."""
        with _writing(self.path):
            return rewind(self.metrics_path, step, before)

    def finish(self, result: dict[str, Any]) -> Path:
        """Writes result.json with what the run was made of, where that is known, and marks the run finished.

        Returns:
            The file's path.
        """
        made_of = self.record.made_of
        with _writing(self.path):
            write_json(self.result_path, {**result, "made_of": made_of} if made_of else result)
        self._end(RunStatus.FINISHED, None)
        return self.result_path

    def fail(self, reason: str, status: RunStatus = RunStatus.FAILED) -> None:
        """Marks the run failed (or interrupted), unless its result is written, and lets it go."""
        finished = self.result_path.exists()
        self._end(RunStatus.FINISHED if finished else status, None if finished else reason)

    def _end(self, status: RunStatus, reason: str | None) -> None:
        ended = attrs.evolve(self.record, status=status, finished_at=utc_now(), reason=reason)
        with _writing(self.path):
            write_record(ended, self.path)
        with indexing(self.path):
            open_index(self.path.parent.parent).set_status(ended)
        lock.release(self.path)


def open_run(
    spec: RootSpec,
    options: RunOptions,
    devices: Iterable[str] = (),
    ops: Mapping[str, str] = NO_OPS,
    inputs: Mapping[str, Input] | None = None,
) -> Run:
    """Starts a run in a new folder, or continues the one that `options.resume` names.

    Only one process of a run calls this; the others `attach` to its path.

    Args:
        spec: What is run.
        options: Where, and what is resumed.
        devices: Names of the accelerators, for the provenance.
        ops: The form of each operation that the networks call, for the provenance.
        inputs: The content that the spec's fields name, by canonical path; None where it is not recorded.

    Raises:
        UserError: The folder can't be written, is in use by another process, or can't be found.
        SpecError: The resumed run has another spec_hash; every differing field is named.
    """
    origin = provenance(options.argv, devices, ops, variables_of(spec))
    if (earlier := resumed(spec, options)) is not None:
        return _resume(earlier, spec, options, inputs, origin)
    runs_dir = options.new_runs_dir
    if inputs is not None:
        inputs = {**inputs, **request_inputs(options.requests or ())}
    if found := list(prefixed(label_problems(spec), "spec")):
        raise SpecError(found)
    label, day = spec.name or tag_of(spec), utc_now()[:10].replace("-", "")
    first = runs_dir / label / f"{day}-{spec_hash(spec)[:HASH_DIGITS]}"
    with _writing(runs_dir), staged(first) as stage:
        dump(spec, stage / SPEC_FILE)
        if options.requests is not None:
            write_requests(stage, options.requests)
        lock.acquire(stage)
        write_provenance(stage / PROVENANCE_FILE, origin)
        record = RunRecord(
            uid=uuid.uuid4().hex,
            path="",
            name=label,
            kind=tag_of(spec),
            spec_hash=spec_hash(spec),
            exact_hash=exact_hash(spec),
            status=RunStatus.RUNNING,
            host=platform.node(),
            started_at=utc_now(),
            requests_hash=None if options.requests is None else requests_hash(options.requests),
            made_of=None if inputs is None else write_inputs(stage, spec_hash(spec), inputs),
        )
        write_record(record, stage)
        index, known = None, set[Path]()
        with suppress(UnusableIndex):  # That is said when the run is registered.
            index = open_index(runs_dir)
            known = {index.folder(other) for other in index.list(matching=record.spec_hash)}
        path = placed(stage, first, known)
    record = attrs.evolve(record, path=path.relative_to(runs_dir).as_posix())
    with indexing(path):
        (index or open_index(runs_dir)).add(record)
    return Run(path, spec, record)


def check_opens(spec: RootSpec, options: RunOptions) -> None:
    """Fails as `open_run` would, so that no work is done for a run that can't be opened.

    Raises:
        UserError: The folder can't be written, the index can't be used, or the run to resume can't be found.
        SpecError: The resumed run has another spec_hash; every differing field is named.
    """
    earlier = resumed(spec, options)
    folder = options.new_runs_dir if earlier is None else earlier.path
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    open_index(options.new_runs_dir)


def resumed(spec: RootSpec, options: RunOptions) -> Run | None:
    """The run that `options.resume` names, as it was left; None where a new one is to be made.

    Raises:
        UserError: It can't be found.
        SpecError: It has another spec_hash; every differing field is named.
    """
    if (folder := folder_to_resume(spec, options)) is None:
        return None
    earlier = attach(folder)
    if spec_hash(earlier.spec) != spec_hash(spec):
        raise SpecError(why_another(earlier.record.path, earlier.spec, spec, options))
    return earlier


def attach(path: Path) -> Run:
    """Reads a run folder, for ranks that did not open it and for those who look at finished runs.

    Raises:
        UserError: The path is no run folder, or its spec is not the one that it was started with.
    """
    path = Path(os.path.abspath(path))
    if not (path / SPEC_FILE).is_file() or not (path / STATUS_FILE).is_file():
        raise UserError(Problem(str(path), f"is no run folder: {SPEC_FILE} or {STATUS_FILE} is missing"))
    spec, record = load(path / SPEC_FILE), read_record(path, path.parent.parent)
    known = (record.spec_hash, record.exact_hash)
    if (spec_hash(spec), exact_hash(spec)) != known and (problems := spec_problems(path, record)):
        raise UserError(problems)
    return Run(path, spec, record)


@contextmanager
def recorded(run: Run) -> Generator[Run]:
    """Records in the run folder and the index how the block ended, where it had not ended the run."""
    try:
        yield run
    except BaseException as error:
        if lock.is_held(run.path):
            can_go_on = isinstance(error, KeyboardInterrupt | StoppedEarly)
            status = RunStatus.INTERRUPTED if can_go_on else RunStatus.FAILED
            with passing_over():
                run.fail(f"{type(error).__name__}: {error}".rstrip(": "), status)
        raise


def _resume(
    earlier: Run,
    spec: RootSpec,
    options: RunOptions,
    inputs: Mapping[str, Input] | None,
    origin: dict[str, Any],
) -> Run:
    path = earlier.path
    with _writing(path):
        ended = options.take_over or is_of_this_launch(path)
        lock.acquire(path, take_over=ended, option=options.name_of("take_over"))
        remove_abandoned(stages(path))
        with indexing(path):
            # Before the folder says so: the index reads a run again that it has as running.
            open_index(path.parent.parent).set_status(attrs.evolve(earlier.record, status=RunStatus.RUNNING))
        again = next(number for number in count(2) if not (path / f"provenance-{number}.json").exists())
        write_provenance(path / f"provenance-{again}.json", origin)
        if exact_hash(spec) != exact_hash(earlier.spec):
            dump(spec, path / f"spec-{again}.json")
        record = attrs.evolve(earlier.record, status=RunStatus.RUNNING, finished_at=None, reason=None)
        if inputs is not None and record.made_of is not None:
            known = (path / INPUTS_FILE).exists()  # Else nobody knows what its first steps were made of.
            made = write_inputs(path, record.spec_hash, inputs) if known else None
            record = attrs.evolve(record, made_of=made)
        write_record(record, path)
    with indexing(path):
        open_index(path.parent.parent).add(record)
    return Run(path, spec, record)


@contextmanager
def _writing(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        where = os.fspath(error.filename or folder)
        raise UserError(Problem(where, f"the run folder can't be written: {error.strerror}")) from error

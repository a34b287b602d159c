"""Runs a stored run's spec again, beside it, and compares the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from mm_config.console.output import is_main_rank
from mm_config.npu.exporting import variables_of
from mm_config.options.run_options import RunOptions, StoppedEarly
from mm_config.reproducing.causes import Suspect, suspects
from mm_config.reproducing.compare import Comparison, compare, compare_video
from mm_config.reproducing.difference import largest
from mm_config.reproducing.inputs import input_changes
from mm_config.reproducing.metrics import read_metrics
from mm_config.reproducing.videos import batch_at, frames_at, video_at, videos_of
from mm_config.running.runners import run
from mm_config.running.threads import on_threads
from mm_config.runs.folder import Run, attach
from mm_config.runs.marks import mark_of
from mm_config.runs.provenance_diff import Origin, OriginChange, changes, origin_here, stored_origins
from mm_config.runs.record import RunStatus
from mm_config.runs.requests import stored_requests
from mm_config.runs.videos import requests_of
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import spec_hash
from mm_config.specs.infer import InferSpec
from mm_config.stored.json_files import write_json

REPORT_FILE = "reproduction.json"
"""In the new run folder: which run it repeats, and what came of it."""

Warn = Callable[[OriginChange], None]


@attrs.frozen
class Reproduction:
    """A run and its repetition."""

    stored: Path
    """The folder of the stored run."""
    reproduced: Path
    """The folder of the new one."""
    origin: tuple[OriginChange, ...]
    """What is not as it was: code, packages, machine, inputs."""
    comparison: Comparison
    """What was compared, and what differed."""

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """What may have made the difference, the likeliest first."""
        return suspects(self.origin, self.comparison.differences)


def reproduce(
    stored: Run,
    options: RunOptions,
    verify_steps: int | None = None,
    warn: Warn = lambda change: None,
    video: Path | None = None,
) -> Reproduction | None:
    """Runs the spec of a stored run again in a new folder and compares what both left behind.

    Requests that stand beside the spec are made again; of a video, those that shared its batch, in which sums
    may be rounded otherwise than alone. The stored run is only read. The new one lies in
    `options.new_runs_dir`, apart from what is found by a spec's hash. Of an unfinished training, as many
    steps as it has are run and compared. Under torchrun
    every rank calls it.

    Args:
        stored: The run, as `attach` reads it.
        options: Where runs and locations are looked up.
        verify_steps: Optimizer steps after which to stop; the schedule stays that of the whole run.
        warn: Gets each thing that is not as it was: what is known beforehand before the run starts.
        video: A file that the run made; it alone is compared, wherever it lies by now.

    Returns:
        What came of it; None on the ranks that only took part in the run.

    Raises:
        UserError: There is nothing to compare with, or not as many steps; or the run failed.
    """
    steps = read_metrics(stored.path)
    finished = stored.record.status is RunStatus.FINISHED
    last_step = None if video else _last_step(stored, max(steps, default=0), finished, verify_steps)
    requests, place = stored_requests(stored.path, stored.record), 0
    if video is not None:
        place, requests = _place_of(stored, video), requests_of(stored)
        batch = _batch_of(stored, place)
        requests = requests[batch.start : batch.stop]
    origins = stored_origins(stored.path)
    said: list[OriginChange] = []

    def say_new(found: Iterator[OriginChange]) -> None:
        for change in found:
            if change.name not in {one.name for one in said}:
                said.append(change)
                warn(change)

    if is_main_rank():
        with on_threads(options.threads):
            here = origin_here(options.argv, variables_of(stored.spec))
        say_new(_spec_changes(stored))
        say_new(_origin_changes(origins, here))
    new = _run(stored, attrs.evolve(options, repeats=stored.path, stop_after=last_step, requests=requests))
    if not is_main_rank():
        return None
    (now,) = stored_origins(new).values()
    say_new(_origin_changes(origins, now))
    say_new(input_changes(stored.path, new, options.contents_dir))
    if video is None:
        comparison = compare(stored.path, new, last_step, finished)
    else:
        again = video_at(new, place - _batch_of(stored, place).start)
        comparison = compare_video(video, again, frames_at(stored.path, place))
    made = Reproduction(stored.path, new, tuple(said), comparison)
    write_json(new / REPORT_FILE, report(made))
    return made


def report(made: Reproduction) -> dict[str, Any]:
    """A reproduction as a JSON object."""
    comparison = made.comparison
    return {
        "identical": comparison.identical,
        "stored": str(made.stored),
        "reproduced": str(made.reproduced),
        "compared": {
            "steps": comparison.steps,
            "checkpoints": list(comparison.checkpoints),
            "videos": comparison.videos,
            "scores": list(comparison.scores),
        },
        "differences": [attrs.asdict(difference) for difference in comparison.differences],
        "largest": {kind: attrs.asdict(one) for kind, one in largest(comparison.differences).items()},
        "suspects": [
            {"cause": one.cause.value, "changes": [change.name for change in one.changes]}
            for one in made.suspects
        ],
        "provenance": [attrs.asdict(change) for change in made.origin],
    }


def _last_step(stored: Run, done: int, finished: bool, verify_steps: int | None) -> int | None:
    """The optimizer step after which to stop, None at the end."""
    record = stored.record
    if not done and not videos_of(stored.path):
        state = f"is {record.status.value} and " if not finished else ""
        raise UserError(Problem(record.path, f"{state}has no steps and no videos to compare with"))
    if verify_steps is None:
        return done if done and not finished else None
    if not done:
        why = f"applies to trainings; {record.path}, a run of kind {record.kind!r}, took no optimizer steps"
        raise UserError(Problem("--verify-steps", why))
    if verify_steps > done:
        why = f"{record.path} has {done} steps to compare with, got {verify_steps}"
        raise UserError(Problem("--verify-steps", why))
    return verify_steps


def _place_of(stored: Run, video: Path) -> int:
    """The place of a video's request among those of its run."""
    request, requests = mark_of(video).request, requests_of(stored)
    if request not in requests:
        why = f"asks for what is not among the requests of its run {stored.record.path}"
        raise UserError(Problem(str(video), why))
    return requests.index(request)


def _batch_of(stored: Run, place: int) -> range:
    """The requests that share a request's batch, by their places; older runs recorded none."""
    assert isinstance(stored.spec, InferSpec), "only a generation has requests"
    size = stored.spec.runtime.batch_size
    start = place - place % size
    return batch_at(stored.path, place) or range(start, start + size)


def _run(stored: Run, options: RunOptions) -> Path:
    try:
        folder = run(stored.spec, options).run_dir
    except StoppedEarly as stopped:
        folder = stopped.run_dir
    new = attach(folder)
    assert new.record.spec_hash == spec_hash(stored.spec), f"{folder} is a run of another spec"
    return new.path


def _origin_changes(origins: Mapping[str, Origin], now: Origin) -> Iterator[OriginChange]:
    """What has changed since a run's start, and since each of its resumes, which is named."""
    for file, then in origins.items():
        resumed = "" if file == "provenance.json" else f" ({file})"
        for change in changes(then, now):
            yield attrs.evolve(change, name=change.name + resumed)


def _spec_changes(stored: Run) -> Iterator[OriginChange]:
    """What is not run again by the name and in the way that it had: its schema grew, a resume changed it."""
    then, now = stored.record.spec_hash, spec_hash(stored.spec)
    if then != now:
        yield OriginChange("spec_hash by the schema of today", then, now)
    for file in sorted(stored.path.glob("spec-[0-9]*.json")):
        yield OriginChange("execution settings", f"changed by a resume ({file.name})", "those of spec.json")

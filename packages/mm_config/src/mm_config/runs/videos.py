"""What made a video: what its comment says, and the run that the index knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs

from mm_config.console.output import passing_over
from mm_config.options.run_options import REPRODUCTIONS
from mm_config.runs.folder import Run, attach
from mm_config.runs.index import open_index
from mm_config.runs.marks import Mark, mark_of
from mm_config.runs.record import STATUS_FILE, RunRecord, uid_in
from mm_config.runs.requests import stored_requests
from mm_config.schema.errors import Problem, UserError
from mm_config.specs.infer import InferSpec
from mm_config.specs.requests import GenerationRequest

_SHOWN_DIGITS = 12


@attrs.frozen
class Traced:
    """What made a video, as far as it is still here."""

    mark: Mark
    """What the file says."""
    run: Run
    """The run that made it or, where `missing` says so, another run of the same spec_hash."""
    is_equal: bool = True
    """Whether it is the very run, or one that was made of the same."""
    missing: str = ""
    """What is not here any more or was never recorded, and what is taken; empty for the very run."""


def trace(path: Path, runs_dir: Path) -> Traced:
    """What made a video, wherever the file lies by now.

    The run is sought around the file, then in the runs folder and in that of its reproductions, by what the
    file's comment says. Of other runs of the spec, one that was made of the same is taken before one that was
    asked for the same.

    Raises:
        UserError: The file carries no comment of ours, or neither the run that made it nor another one of its
            spec is here.
    """
    mark = mark_of(path)
    seen = list(_of_spec(path, mark, runs_dir))
    here = [folder for record, folder, is_here in seen if is_here and record.uid == mark.uid]
    if here:
        return Traced(mark, attach(here[0]))
    others: dict[Path, tuple[Run, tuple[GenerationRequest, ...]]] = {}
    for folder in (folder for _, folder, is_here in seen if is_here):
        with passing_over():
            others[folder] = (run := attach(folder)), requests_of(run)
    missing = _missing(mark, runs_dir, [folder for record, folder, _ in seen if record.uid == mark.uid])
    spec = f"spec {mark.spec_hash[:_SHOWN_DIGITS]}"
    if not others:
        told = f"{missing}, and {runs_dir} has no other run of its {spec}; --runs-dir names another folder"
        raise UserError(Problem(str(path), told))
    runs = [run for run, _ in others.values()]
    if mark.made_of and (equal := [run for run in runs if run.record.made_of == mark.made_of]):
        same = f"was made of the same ({mark.made_of[:_SHOWN_DIGITS]})"
        return Traced(mark, equal[0], True, f"{missing}; taking {equal[0].record.path}, which {same}")
    taken = next((run for run, requests in others.values() if mark.request in requests), runs[0])
    other = "is not known to be" if None in (mark.made_of, taken.record.made_of) else "was not"
    told = f"which has the same {spec} and {other} made of the same"
    return Traced(mark, taken, False, f"{missing}; taking {taken.record.path}, {told}")


def requests_of(run: Run) -> tuple[GenerationRequest, ...]:
    """What a run was asked to make, in the order of its videos: what stands beside its spec, else the spec's.

    Raises:
        UserError: The stored requests can't be read, or were edited.
    """
    stored = stored_requests(run.path, run.record)
    if stored is not None:
        return stored
    return run.spec.samples.requests if isinstance(run.spec, InferSpec) else ()


def _of_spec(path: Path, mark: Mark, runs_dir: Path) -> Iterator[tuple[RunRecord, Path, bool]]:
    """The runs that may have made a video, each with its folder and whether that is here."""
    around = path.absolute().parent.parent
    with passing_over():
        if os.path.lexists(around / STATUS_FILE) and uid_in(around) == mark.uid:
            yield attach(around).record, around, True
    for folder in (runs_dir, runs_dir / REPRODUCTIONS):
        if folder.is_dir():
            index = open_index(folder)
            for record in index.list(matching=mark.spec_hash):
                yield record, index.folder(record), index.is_here(record)


def _missing(mark: Mark, runs_dir: Path, gone: list[Path]) -> str:
    if mark.uid is None:
        return "names no run: it was written by the library's own doors, or before runs were named in videos"
    where = f"whose folder {gone[0]} is gone" if gone else f"which is not in {runs_dir}"
    return f"was made by the run {mark.run}, {where}"

"""Which run is meant by `--resume`, and why it can't be continued with another spec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_config.options.run_options import RunOptions
from mm_config.runs.index import open_index
from mm_config.runs.record import SPEC_FILE
from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import diff, for_person
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import SEMANTIC
from mm_config.schema.root import RootSpec


def folder_to_resume(spec: RootSpec, options: RunOptions) -> Path:
    """The folder that `options.resume` names: a path, a run id, a hash prefix, or `latest` of the label.

    Raises:
        UserError: There is none, or runs of different specs match; all of them are named.
    """
    target = options.resume
    assert target is not None
    if (Path(target) / SPEC_FILE).is_file():
        return Path(target)
    index = open_index(options.runs_dir)
    latest = target == "latest"
    found = index.list(name=spec.name or tag_of(spec)) if latest else index.list(matching=target)
    if not found:
        raise UserError(Problem("--resume", f"no run {target!r} of {spec.name!r} in {options.runs_dir}"))
    if not latest and len({record.spec_hash_now or record.spec_hash for record in found}) > 1:
        candidates = ", ".join(record.path for record in found)
        raise UserError(Problem("--resume", f"{target!r} is ambiguous: {candidates}"))
    return index.folder(found[0])


def why_another(run: str, earlier: RootSpec, spec: RootSpec) -> Iterator[Problem]:
    """That a run, by its id, was started with another spec, and every field that makes it another."""
    yield Problem("--resume", f"{run} was started with another spec")
    for change in diff(earlier, spec):
        if change.role is SEMANTIC:
            was, now = for_person(change.old), for_person(change.new)
            yield Problem(change.path, f"was {was} in that run, is {now} now")

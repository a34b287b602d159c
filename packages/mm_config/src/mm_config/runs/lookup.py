"""Which stored runs a person means by a run id or by the beginning of a hash, and which to resume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mm_config.options.run_options import RunOptions
from mm_config.runs.index import Index, open_index
from mm_config.runs.provenance import LAUNCH, read_provenance
from mm_config.runs.record import SPEC_FILE, RunRecord, RunStatus
from mm_config.schema.decorator import tag_of
from mm_config.schema.diff import diff, for_person
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.fields import SEMANTIC
from mm_config.schema.identity import exact_hash
from mm_config.schema.root import RootSpec

MIN_PREFIX = 6
"""Fewest hex digits that are looked up as a hash."""


def runs_named(index: Index, target: str) -> tuple[RunRecord, ...]:
    """The runs of one spec whose folders are here, newest first; empty where no run has the name.

    Args:
        index: The runs.
        target: A run id, a run folder's own name, or at least 6 digits from the beginning of a hash.

    Raises:
        UserError: Runs of different specs match, all of which are named, or their folders are gone.
    """
    found = index.list(matching=target)
    chosen = [record for record in found if target in (record.path, record.path.rpartition("/")[2])]
    if not chosen and re.fullmatch(f"[0-9a-fA-F]{{{MIN_PREFIX},64}}", target):
        prefix = target.lower()
        chosen = [record for record in found if any(digits.startswith(prefix) for digits in record.hashes)]
    if len({record.spec_hash_now or record.spec_hash for record in chosen}) > 1:
        candidates = ", ".join(f"{record.path} (spec {record.spec_hash[:12]})" for record in chosen)
        raise UserError(Problem(target, f"is ambiguous: {candidates}"))
    here = tuple(record for record in chosen if index.folder(record).is_dir())
    if chosen and not here:
        gone = ", ".join(str(index.folder(record)) for record in chosen)
        raise UserError(Problem(target, f"its run folder is gone: {gone}"))
    return here


def why_none(index: Index, target: str) -> str | None:
    """Why `runs_named` finds nothing by a name that nearly is one: a short prefix, or a label."""
    if re.fullmatch("[0-9a-fA-F]+", target) and len(target) < MIN_PREFIX:
        return f"a hash prefix needs at least {MIN_PREFIX} hex digits"
    if labelled := [record.path for record in index.list(matching=target) if record.name == target]:
        return f"is the label of {', '.join(labelled)}; name a run or a hash"
    return None


def folder_to_resume(spec: RootSpec, options: RunOptions) -> Path | None:
    """The folder that `options.resume` names: a path, a run id, a hash prefix, `latest` of the label, or
    `auto` for the newest of the very spec that has not finished.

    Returns:
        None where there is nothing to resume, or no latest run and `options.restart` asks for a new one.

    Raises:
        UserError: There is none, or runs of different specs match; all of them are named.
    """
    target = options.resume
    if target is None:
        return None
    if target == "auto":
        return _unfinished(open_index(options.runs_dir), spec)
    if (Path(target) / SPEC_FILE).is_file():
        return Path(target)
    index = open_index(options.runs_dir)
    latest = target == "latest"
    label, option = spec.name or tag_of(spec), options.name_of("resume")
    known = index.list(name=label) if latest else index.list(matching=target)
    found = [record for record in known if index.folder(record).is_dir()]
    if not found and latest and options.restart:
        return None
    if not found:
        raise UserError(Problem(option, f"no run {target!r} of {label!r} in {options.runs_dir}"))
    if not latest and len({record.spec_hash_now or record.spec_hash for record in found}) > 1:
        candidates = ", ".join(record.path for record in found)
        raise UserError(Problem(option, f"{target!r} is ambiguous: {candidates}"))
    return index.folder(found[0])


def is_of_this_launch(folder: Path) -> bool:
    """Whether the last process of a run was of the launch by torchrun that this process is of, too: before
    torchrun starts its ranks again, it has ended them."""
    launch = os.environ.get(LAUNCH, "none")
    written = sorted(folder.glob("provenance*.json"), key=lambda file: (len(file.name), file.name))
    with suppress(UserError, LookupError):  # What can't be read tells nothing.
        return launch != "none" and read_provenance(written[-1])["launcher"].get(LAUNCH) == launch
    return False


def _unfinished(index: Index, spec: RootSpec) -> Path | None:
    """The newest run of the very spec that has not finished, or that this launch has finished before torchrun
    started its ranks again: what one of them failed at came after its end."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    for record in index.list(name=spec.name or tag_of(spec), matching=exact_hash(spec)):
        folder = index.folder(record)
        unfinished = record.status is not RunStatus.FINISHED
        if folder.is_dir() and (unfinished or (again and is_of_this_launch(folder))):
            return folder
    return None


def why_another(run: str, earlier: RootSpec, spec: RootSpec, options: RunOptions) -> Iterator[Problem]:
    """That a run, by its id, was started with another spec, and every field that makes it another."""
    yield Problem(options.name_of("resume"), f"{run} was started with another spec")
    for change in diff(earlier, spec):
        if change.role is SEMANTIC:
            was, now = for_person(change.old), for_person(change.new)
            yield Problem(change.path, f"was {was} in that run, is {now} now")

"""Which stored runs a person means by a run id or by the beginning of a hash."""

from __future__ import annotations

import re

from mm_config.runs.index import Index
from mm_config.runs.record import RunRecord
from mm_config.schema.errors import Problem, UserError

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

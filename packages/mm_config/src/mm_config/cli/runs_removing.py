"""`mm runs rm` and `mm runs gc`: what would go, what stands in the way, and what went."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mm_config.cli.scan import FORCE, JSON, YES, CommandLine
from mm_config.console.output import aside, print_json, print_lines, table
from mm_config.durable.leftovers import size_of
from mm_config.rules.wording import counted
from mm_config.runs.index import Index
from mm_config.runs.record import RunRecord, RunStatus
from mm_config.runs.removing import kept_by_others, remove_leftovers, remove_run
from mm_config.schema.errors import Problem, UserError


def remove_named(index: Index, line: CommandLine, records: Sequence[RunRecord]) -> None:
    """Removes runs where that is said by --yes or at the terminal, and no running run is among them.

    Raises:
        UserError: A run is running, others were made of one, it can't be removed, or nobody said yes.
    """
    running = [record for record in records if record.status is RunStatus.RUNNING]
    problems = [Problem(record.path, "is running; stop it first") for record in running]
    if not line.has(FORCE):
        needed = [*kept_by_others(index, records)]
        problems += [
            Problem(one.path, f"{one.message}; {FORCE.flag} removes it all the same") for one in needed
        ]
    if problems:
        raise UserError(problems)
    sizes = {record.path: size_of(at) if (at := index.folder(record)).is_dir() else 0 for record in records}
    what = f"{counted(len(records), 'run')}, {shown_size(sum(sizes.values()))}"
    if not line.has(JSON) and records:
        rows = [
            (one.path, one.status.value, one.started_at[:10], shown_size(sizes[one.path])) for one in records
        ]
        table(f"runs to remove: {what}", rows, ("run", "status", "started", "size"))
    if records and not line.has(YES) and not _agreed(what):
        raise UserError(Problem(YES.flag, f"nothing was removed; with it, {what} would be"))
    for record in records:
        remove_run(index, record, unread=line.has(FORCE))
    if line.has(JSON):
        print_json({"removed": [*sizes], "bytes": sum(sizes.values())})
    else:
        print_lines([f"removed {what}"])


def collect(index: Index, line: CommandLine) -> None:
    """Removes what processes left that have ended, and lists what nobody can tell of."""
    gone, kept = remove_leftovers(index.runs_dir)
    size = sum(one.size for one in gone)
    if line.has(JSON):
        told = [{"path": str(one.path), "bytes": one.size} for one in kept]
        print_json({"removed": [str(one.path) for one in gone], "bytes": size, "kept": told})
        return
    print_lines([f"removed {counted(len(gone), 'leftover')}, {shown_size(size)}, of {index.runs_dir}"])
    for one in kept:
        aside(f"{one.path}: {shown_size(one.size)} stay; whose they are can't be told from here")


def shown_size(count: float) -> str:
    """A number of bytes, for a person."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1000:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def _agreed(what: str) -> bool:
    """Whether a person at the terminal says yes; nobody does where there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return input(f"remove {what}? [y/N] ").strip().lower() in ("y", "yes")

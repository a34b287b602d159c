"""`mm runs`: what was run here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm_config.cli.scan import FORCE, JSON, RUNS_DIR, YES, CommandLine, Option, whole_number
from mm_config.cli.targets import runs_dir_of
from mm_config.cli.verb import MORE, Action, Usage, Verb
from mm_config.console.output import aside, print_json, print_lines
from mm_config.runs.conditions import moment, parse_condition
from mm_config.runs.index import Index, open_index, unfilled_index
from mm_config.runs.listing import run_folders
from mm_config.runs.marks import SUFFIX
from mm_config.runs.record import RunRecord, RunStatus, to_row
from mm_config.runs.videos import trace
from mm_config.schema.errors import Problem, UserError, gathering
from mm_config.stored.structuring import all_aliases

NAME = Option("--name", "Only runs with this label.", "NAME")
STATUS = Option(
    "--status",
    "Only runs that have come this far.",
    "STATUS",
    choices=tuple(status.value for status in RunStatus),
)
SINCE = Option("--since", "Only runs started at this date or time (UTC) or later.", "DATE", read=moment)
UNTIL = Option("--until", "Only runs started before this date or time (UTC).", "DATE", read=moment)
WHERE = Option(
    "--where",
    "Only runs whose spec has the field, with such a value: FIELD, one of = != < <= > >= or ~ (contains), "
    "and a value as in a file, or None. May be repeated; all must hold.",
    "CONDITION",
    repeatable=True,
    read=parse_condition,
)
LIMIT = Option("--limit", "Show at most so many runs, the newest.", "N", read=whole_number)
FILTERS = (NAME, STATUS, SINCE, UNTIL, WHERE)
USAGE = Usage(
    "mm runs [list | find TEXT | show RUN | compare RUN RUN ... | reindex | rm [RUN ...] | gc] "
    "[--where CONDITION ...] [--name NAME] [--status STATUS] [--since DATE] [--until DATE] [--limit N] "
    "[--yes] [--force] [--json] [--runs-dir DIR]",
    "List, find, show, compare and remove runs.",
    "list: all runs, newest first. find: the runs whose id or label is TEXT, or whose spec_hash or "
    "exact_hash starts with it. show: all that is known of one run and what it left behind. compare: the "
    "content and the fields in which runs differ, and what came of each. reindex: makes the index anew from "
    "the run folders, as after moving some or after an update that changed the fields of specs.\n\n"
    "RUN is a run folder, a video that a run made, or what find takes; of several matches, the newest is "
    "meant.\n\n"
    "rm: removes runs for good, those that are named or, where none is, all that meet the conditions. It "
    "lists them with their sizes and asks, or needs --yes. A running run stays, and so does one that another "
    "run was made of, such as the training that weights come from: it is said which, and --force removes it "
    "all the same. RUN has to mean one run here. gc: removes what killed processes left in the runs folder, "
    "where they have provably ended; what another machine or container may still write is listed and stays.",
    (*FILTERS, LIMIT, YES, FORCE, JSON, RUNS_DIR),
    (
        ("mm runs", "what was run here"),
        ("mm runs list --name tiny_high --status finished", "the finished runs of one experiment"),
        ("mm runs list --where 'optim.lr>1e-5' --since 2026-11-22", "by a field of the spec and a date"),
        ("mm runs find 7f3a91", "the runs of a spec"),
        ("mm runs show 7f3a91", "its newest run"),
        ("mm runs compare 7f3a91 tiny_high", "what differs between two runs"),
        ("mm runs rm tiny_high/20261122-7f3a91c2d0e4-1", "one run and its checkpoints, after a question"),
        ("mm runs rm --status failed --until 2026-11-01 --yes", "the failed runs of before November"),
        ("mm runs gc", "what killed processes left"),
    ),
    takes="runs",
    actions={
        "list": Action((), (YES, FORCE)),
        "find": Action(("TEXT",), (YES, FORCE)),
        "show": Action(("RUN",), (LIMIT, YES, FORCE)),
        "compare": Action(("RUN", "RUN", MORE), (*FILTERS, LIMIT, YES, FORCE)),
        "reindex": Action((), (*FILTERS, LIMIT, YES, FORCE)),
        "rm": Action(("[RUN]", MORE), (LIMIT,)),
        "gc": Action((), (*FILTERS, LIMIT, YES, FORCE)),
    },
    default_action="list",
)


def list_or_show(line: CommandLine) -> int:
    """Carries out the action."""
    name, *words = line.words
    # A reindexing fills the index itself.
    opened = unfilled_index if name == "reindex" else open_index
    ACTIONS[name](opened(runs_dir_of(line)), line, words)
    return 0


def _list(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    found = _found(index, line, *words)
    if words and not found:
        raise UserError(_none(index, line, words[0]))
    limit = line.value(LIMIT)
    shown = found[:limit]
    if line.has(JSON):
        print_json([to_row(record) for record in shown])
    elif shown:
        from mm_config.cli.runs_page import print_list

        print_list(shown, len(found))
    else:
        # On a fresh machine the folder of the default is not there yet; one that was named should be.
        missing = line.has(RUNS_DIR) and not index.runs_dir.is_dir()
        note = ": there is no such folder" if missing else ""
        met = f"no run in {index.runs_dir} meets this"
        print_lines([met if _filtered(line) else f"no runs in {index.runs_dir}{note}"])


def _show(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    from mm_config.cli.runs_page import print_run, run_report

    record = _one(index, line, words[0])
    if line.has(JSON):
        print_json(run_report(index, record))
    else:
        print_run(index, record)


def _compare(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    from mm_config.cli.runs_compare import (
        comparison_report,
        differing_fields,
        differing_inputs,
        figures,
        print_comparison,
    )

    problems: list[Problem] = []
    by_path: dict[str, str] = {}
    records: list[RunRecord] = []
    for word in words:
        with gathering(problems):
            record = _one(index, line, word)
            if record.path in by_path:
                problems.append(Problem(word, f"is the same run as {by_path[record.path]}: {record.path}"))
            by_path.setdefault(record.path, word)
            records.append(record)
    if problems:
        raise UserError(problems)
    compared = (differing_inputs(index, records), differing_fields(index, records), figures(index, records))
    if line.has(JSON):
        print_json(comparison_report(records, *compared))
    else:
        print_comparison(records, *compared)


def _reindex(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    from mm_config.console.output import progress
    from mm_config.rules.wording import counted

    if line.has(JSON):
        print_json({"indexed": index.reindex()})
        return
    total = sum(1 for _ in run_folders(index.runs_dir))
    with progress("read", total, unit="run", every=1000) as bar:
        count = index.reindex(bar.advance)
    print_lines([f"indexed {counted(count, 'run')} of {index.runs_dir}"])


def _remove(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    if not words and not _filtered(line):
        raise UserError("expected RUN, or conditions such as --status failed that runs have to meet")
    problems: list[Problem] = []
    records: dict[str, RunRecord] = {}
    for word in words:
        with gathering(problems):
            found = _meant(index, line, word)
            records[found[0].path] = found[0]
            if len(found) > 1:
                named = ", ".join(record.path for record in found[:10])
                problems.append(Problem(word, f"means {len(found)} runs: {named}; name each, or use --name"))
    if problems:
        raise UserError(problems)
    if not words:
        records = {record.path: record for record in _found(index, line)}
    from mm_config.cli.runs_removing import remove_named

    remove_named(index, line, [*records.values()])


def _collect(index: Index, line: CommandLine, words: Sequence[str]) -> None:
    from mm_config.cli.runs_removing import collect

    collect(index, line)


def _found(index: Index, line: CommandLine, text: str | None = None) -> Sequence[RunRecord]:
    status = line.value(STATUS)
    return index.list(
        matching=text,
        name=line.value(NAME),
        status=None if status is None else RunStatus(status),
        since=line.value(SINCE),
        until=line.value(UNTIL),
        where=line.values(WHERE),
        aliases=all_aliases() if line.has(WHERE) else {},
    )


def _one(index: Index, line: CommandLine, text: str) -> RunRecord:
    """The newest run that a text means."""
    return _meant(index, line, text)[0]


def _meant(index: Index, line: CommandLine, text: str) -> Sequence[RunRecord]:
    """The runs that a text means, newest first; at least one."""
    if Path(text).suffix == SUFFIX and Path(text).is_file():
        traced = trace(Path(text), index.runs_dir)
        if traced.missing:
            aside(f"{text}: {traced.missing}")
        text = traced.run.record.path
    folder = Path(text).resolve()
    if folder.is_dir() and folder.is_relative_to(index.runs_dir.resolve()):
        text = folder.relative_to(index.runs_dir.resolve()).as_posix()
    if not (found := _found(index, line, text)):
        raise UserError(_none(index, line, text))
    return found


def _none(index: Index, line: CommandLine, text: str) -> Problem:
    beside = " and meets the conditions" if _filtered(line) else ""
    return Problem(text, f"no run in {index.runs_dir} has this id, label or hash{beside}")


def _filtered(line: CommandLine) -> bool:
    return any(map(line.has, FILTERS))


ACTIONS = {
    "list": _list,
    "find": _list,
    "show": _show,
    "compare": _compare,
    "reindex": _reindex,
    "rm": _remove,
    "gc": _collect,
}
VERB = Verb(USAGE, list_or_show)

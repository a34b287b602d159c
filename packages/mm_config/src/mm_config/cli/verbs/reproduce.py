"""`mm reproduce`: runs a stored run again and says whether the outcome is the same to the last bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from mm_config.cli.main import LOCATION
from mm_config.cli.page import Usage, print_usage
from mm_config.cli.scan import HELP, JSON, RUNS_DIR, CommandLine, Option, scan, whole_number
from mm_config.cli.targets import runs_dir_of
from mm_config.console.commands import typed_path
from mm_config.console.output import is_main_rank, say
from mm_config.options.locations import Locations, load_locations, unused_names
from mm_config.options.run_options import RunOptions
from mm_config.reproducing.compare import told
from mm_config.reproducing.reproduce import Reproduction, report, reproduce
from mm_config.runs.folder import Run, attach
from mm_config.runs.index import open_index
from mm_config.runs.lookup import runs_named, why_none
from mm_config.runs.provenance_diff import OriginChange
from mm_config.runs.record import RunStatus
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import spec_hash
from mm_config.schema.suggestions import did_you_mean

VERIFY_STEPS = Option(
    "--verify-steps",
    "Run and compare only the first N optimizer steps of a training, on the schedule of the whole run.",
    "N",
)
USAGE = Usage(
    "mm reproduce HASH|RUN [--verify-steps N] [--json] [--runs-dir DIR] [--location NAME=PATH ...]",
    "Runs the stored spec of a run again, in a new folder, and compares step by step what both left behind: "
    "loss, norm of the gradients and learning rate, the tensors of the checkpoints that both have, videos "
    "and scores. Prints `identical` or the first value that differs. The stored run is only read.\n\n"
    "Before it starts, it warns of each difference between then and now: commits, uncommitted code, "
    "packages, Python, machine, threads. The new run lies in RUNS_DIR/reproductions, so that a hash still "
    "finds the stored one. Weights that the spec takes from other trainings are taken from their runs.\n\n"
    "HASH is the first 6 or more digits of a spec_hash or exact_hash: of several equal runs the newest "
    "finished one is taken. RUN is a run's id or its folder.\n\n"
    "Exit status: 0 identical, 1 different, 2 for a mistake.",
    (VERIFY_STEPS, JSON, RUNS_DIR, LOCATION),
    (
        ("mm reproduce 7f3a91c2", "run it again, prove that it is the same"),
        ("mm reproduce 7f3a91c2 --verify-steps 20", "only its first steps"),
        ("torchrun --nproc-per-node 8 -m mm_config reproduce 7f3a91c2", "a run of 8 ranks"),
        ("mm reproduce runs/tiny_high/20261122-7f3a91c2d0e4-1 --json", "one run, for a script"),
    ),
    words="runs",
)
FLAGS = [option.flag for option in USAGE.options]


def run(argv: Sequence[str]) -> int:
    """Run a stored run again and compare the outcome bit by bit."""
    line = scan(argv, USAGE.options)
    if line.has(HELP):
        print_usage(USAGE)
        return 0
    target, verify_steps, options = _read(line, argv)
    stored = _find(target, options.runs_dir)
    if unused := list(unused_names(options.locations, stored.spec)):
        raise UserError(unused)
    # What the run itself prints is no part of the JSON.
    with redirect_stdout(sys.stderr) if line.has(JSON) else nullcontext():
        say(f"reproducing {typed_path(stored.path)} (spec {spec_hash(stored.spec)[:12]})")
        made = reproduce(stored, options, verify_steps, _warn)
    if made is None:
        return 0
    if line.has(JSON):
        print(json.dumps(report(made), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(made)))
    return 0 if made.comparison.identical else 1


def _read(line: CommandLine, argv: Sequence[str]) -> tuple[str, int | None, RunOptions]:
    """The target, the number of steps and the options.

    Raises:
        UserError: All that is wrong with the command line.
    """
    problems = list(line.problems)
    for given in line.fields:
        of_spec = given.flag.removeprefix("--").partition(".")[0] == "spec"
        why = (
            "the stored spec is run as it is" if of_spec else f"unknown flag{did_you_mean(given.flag, FLAGS)}"
        )
        problems.append(Problem(given.flag, why))
    if len(line.words) != 1:
        got = f"got {len(line.words)}: {' '.join(line.words)}" if line.words else "got none"
        problems.append(Problem("", f"expected one run, {got} (usage: {USAGE.line})"))
    steps, locations = None, Locations()
    try:
        steps = whole_number(VERIFY_STEPS, text) if (text := line.value(VERIFY_STEPS)) else None
    except UserError as error:
        problems.extend(error.problems)
    try:
        locations = load_locations(line.options.get(LOCATION.flag, ()))
    except UserError as error:
        problems.extend(error.problems)
    if problems:
        raise UserError(problems)
    command = ("mm", "reproduce", *argv)
    return line.words[0], steps, RunOptions(runs_dir=runs_dir_of(line), locations=locations, argv=command)


def _find(target: str, runs_dir: Path) -> Run:
    """The run that a folder, a run id or the beginning of a hash names.

    Raises:
        UserError: There is none, or runs of different specs match; all of them are named.
    """
    if Path(target).exists():
        return attach(Path(target))
    index = open_index(runs_dir)
    runs = runs_named(index, target)
    if not runs:
        nothing = f"no run in {runs_dir} has this id or hash, and there is no such folder"
        raise UserError(Problem(target, why_none(index, target) or nothing))
    newest = next((record for record in runs if record.status is RunStatus.FINISHED), runs[0])
    if len(runs) > 1 and is_main_rank():
        print(f"{len(runs)} runs match {target}; taking {newest.path}", file=sys.stderr, flush=True)
    return attach(index.folder(newest))


def _warn(change: OriginChange) -> None:
    print(f"warning: {change}", file=sys.stderr, flush=True)


def _lines(made: Reproduction) -> list[str]:
    comparison = made.comparison
    folders = [f"  stored      {typed_path(made.stored)}", f"  reproduced  {typed_path(made.reproduced)}"]
    if comparison.identical:
        return [f"identical: {told(comparison)}", *folders]
    count = len(comparison.differences)
    values = "1 value" if count == 1 else f"the first of {count} values"
    return [str(comparison.differences[0]), f"  different   {values}; compared {told(comparison)}", *folders]

"""`mm reproduce`: runs a stored run again and says whether the outcome is the same to the last bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from mm_config.cli.like import LIKE, threads_like
from mm_config.cli.main import LOCATION
from mm_config.cli.scan import JSON, RUNS_DIR, CommandLine, Option, whole_number
from mm_config.cli.targets import find_run, runs_dir_of
from mm_config.cli.verb import Usage, Verb
from mm_config.console.copyable import typed_path
from mm_config.console.output import aside, print_json, print_lines, say
from mm_config.options.locations import load_locations, unused_names
from mm_config.options.run_options import RunOptions
from mm_config.reproducing.causes import Suspect
from mm_config.reproducing.compare import told
from mm_config.reproducing.difference import largest
from mm_config.reproducing.reproduce import Reproduction, report, reproduce
from mm_config.runs.marks import SUFFIX
from mm_config.runs.provenance_diff import OriginChange
from mm_config.schema.errors import Problem, UserError
from mm_config.schema.identity import spec_hash

VERIFY_STEPS = Option(
    "--verify-steps",
    "Run and compare only the first N optimizer steps of a training, on the schedule of the whole run.",
    "N",
    read=whole_number,
)
USAGE = Usage(
    "mm reproduce HASH|RUN|VIDEO [--verify-steps N] [--like RUN] [--json] [--runs-dir DIR] "
    "[--location NAME=PATH ...]",
    "Run a stored run again and compare the outcome bit by bit.",
    "Runs the stored spec of a run again, in a new folder, and compares step by step what both left behind: "
    "loss, norm of the gradients and learning rate, the tensors of the checkpoints that both have, videos "
    "and scores. Prints `identical`, or the first value that differs, the largest difference of all, and the "
    "likely cause: data, weights, code, versions, threads or device. The stored run is only read.\n\n"
    "Before it starts, it warns of each difference between then and now: commits, uncommitted code, "
    "packages, Python, machine, threads. The new run lies in RUNS_DIR/reproductions, so that a hash still "
    "finds the stored one. Weights that the spec takes from other trainings are taken from their runs.\n\n"
    "HASH is the first 6 or more digits of a spec_hash or exact_hash: of several equal runs the newest "
    "finished one that made the videos of its spec is taken. RUN is a run's id or its folder. VIDEO is an "
    ".mp4 that a run made, wherever it lies by now: it alone is compared.\n\n"
    "Exit status: 0 identical, 1 different, 2 for a mistake.",
    (VERIFY_STEPS, LIKE, JSON, RUNS_DIR, LOCATION),
    (
        ("mm reproduce 7f3a91c2", "run it again, prove that it is the same"),
        ("mm reproduce circle.mp4", "one video, with the weights and the request that made it"),
        ("mm reproduce 7f3a91c2 --like 7f3a91c2", "on as many threads as it had, where they differ by now"),
        ("mm reproduce 7f3a91c2 --verify-steps 20", "only its first steps"),
        ("torchrun --nproc-per-node 8 -m mm_config reproduce 7f3a91c2", "a run of 8 ranks"),
        ("mm reproduce runs/tiny_high/20261122-7f3a91c2d0e4-1 --json", "one run, for a script"),
    ),
    words=("RUN",),
    takes="runs",
)


def run_again(line: CommandLine) -> int:
    """Runs a stored run again and prints how the outcome compares."""
    options = RunOptions(
        runs_dir=runs_dir_of(line),
        locations=load_locations(line.values(LOCATION)),
        threads=threads_like(line),
        argv=("mm", "reproduce", *line.argv),
    )
    word = line.words[0]
    video = Path(word) if Path(word).suffix == SUFFIX and Path(word).is_file() else None
    if video and line.has(VERIFY_STEPS):
        raise UserError(Problem(VERIFY_STEPS.flag, f"applies to trainings; {word} is a video"))
    stored = find_run(word, options.runs_dir, or_equal=True)
    if unused := list(unused_names(options.locations, stored.spec)):
        raise UserError(unused)
    # What the run itself prints is no part of the JSON.
    with redirect_stdout(sys.stderr) if line.has(JSON) else nullcontext():
        say(f"reproducing {typed_path(stored.path)} (spec {spec_hash(stored.spec)[:12]})")
        made = reproduce(stored, options, line.value(VERIFY_STEPS), _warn, video)
    if made is None:
        return 0
    if line.has(JSON):
        print_json(report(made))
    else:
        print_lines(_lines(made, video))
    return 0 if made.comparison.identical else 1


def _warn(change: OriginChange) -> None:
    aside(f"warning: {change}")


def _lines(made: Reproduction, video: Path | None) -> list[str]:
    comparison = made.comparison
    folders = [f"  stored      {typed_path(made.stored)}", f"  reproduced  {typed_path(made.reproduced)}"]
    if comparison.identical:
        return [f"identical: {told(comparison)}", *folders]
    count = len(comparison.differences)
    values = "1 value" if count == 1 else f"the first of {count} values"
    lines = [str(comparison.differences[0]), f"  different   {values}; compared {told(comparison)}"]
    sizes = largest(comparison.differences).values()
    lines += [f"  largest     {one.kind} {_percent(one.share or 0.0)}  {one}" for one in sizes]
    return [*lines, *_suspected(made.suspects, video), *folders]


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 else f"{share:.1e}"


def _suspected(found: Sequence[Suspect], video: Path | None) -> Iterator[str]:
    """The likely cause with what speaks for it, then the other causes that something speaks for.

    Of an input and what it was made of, the innermost that differs is told: `A` is left out beside `A, B`.
    """
    if not found:
        yield "  likely      nothing that is recorded has changed: an operation that is not deterministic"
        return
    first, *others = found
    innermost = (
        change
        for change in first.changes
        if not any(one.name.startswith(f"{change.name}, ") for one in first.changes)
    )
    named = (str(change).removeprefix(f"{first.cause.value} ") for change in innermost)
    damaged = (
        f"{video} was encoded again, or damaged, after it was made"
        if video
        else "they are not what was written"
    )
    because = "; ".join(named) or damaged
    yield f"  likely      {first.cause.value}: {because}"
    if others:
        yield f"  or          {', '.join(one.cause.value for one in others)}"


VERB = Verb(USAGE, run_again)

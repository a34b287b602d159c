"""`main(SPEC)`: the command line of an experiment file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mm_config.cli.exits import exit_status
from mm_config.cli.extending import EXTEND, extended
from mm_config.cli.like import LIKE, threads_like
from mm_config.cli.parse import overridden, unsaid_ranks
from mm_config.cli.scan import HELP, RUNS_DIR, WORLD_SIZE, Option, scan
from mm_config.cli.targets import named, runs_dir_of
from mm_config.console.output import is_main_rank, print_lines, say, set_by_torchrun
from mm_config.options.locations import Locations, load_locations, unused_names
from mm_config.options.run_options import ACCEPT, RunOptions, RunOutcome
from mm_config.rules.carried_out import refusals
from mm_config.schema.errors import Problem, UserError, gathering
from mm_config.schema.root import RootSpec
from mm_config.schema.types import expect

RESUME = Option(
    "--resume",
    "Continue a run: its folder, its id, a hash prefix, or latest; auto continues the newest run of the very "
    "spec that has not finished, or makes one. A training that is asked to stop saves its state first and "
    "ends with 143 (SIGTERM), 138 (SIGUSR1), 130 (Ctrl-C) or 129 (SIGHUP).",
    "RUN|latest|auto",
)
TAKE_OVER = Option(
    "--take-over", "Resume a run that a process on another machine has not given back, since that has ended."
)
RESTART = Option(
    "--restart", "Make a new run where --resume latest finds none, or a run that has lost its checkpoints."
)
IF_NEEDED = Option(
    "--if-needed", "Report a finished run of an equal spec and equal content instead of running again."
)
DRY_RUN = Option(
    "--dry-run", "Check the spec, print its plan, its hashes and what would run; change nothing."
)
LOCATION = Option(
    "--location",
    "Where weights or data of a logical name lie on this machine; may be repeated. Also read from the "
    "project's locations.yaml, then from the user's.",
    "NAME=PATH",
    repeatable=True,
)
ACCEPT_CONTENT = Option(
    ACCEPT, "Take data and weights as they are, where a name and revision meant another content before."
)
OPTIONS = (
    RESUME,
    TAKE_OVER,
    RESTART,
    EXTEND,
    IF_NEEDED,
    LIKE,
    ACCEPT_CONTENT,
    RUNS_DIR,
    DRY_RUN,
    WORLD_SIZE,
    LOCATION,
)


def main(spec: RootSpec, argv: Sequence[str] | None = None) -> RunOutcome | None:
    """Parses the command line over a spec, checks the result and runs it.

    The last line on stdout is the absolute path of the run's `result.json`. The label of a spec without
    one is the experiment file's stem. In a notebook, where the command line is the kernel's, the spec is
    run as it is and mistakes are raised.

    Args:
        spec: The experiment's spec, whose fields are the defaults.
        argv: The command line with the experiment file first; `sys.argv` by default.

    Returns:
        What the run left behind; None where nothing was run, as by `--help`.

    Raises:
        SystemExit: With status 2 after one line per problem on stderr, with 130 when interrupted.
        UserError: The same problems, in a notebook.
        TypeError: What is given is no spec, in a notebook.
    """
    if argv is None and not hasattr(sys.modules["__main__"], "__file__"):
        from mm_config.running.runners import run

        expect("spec", spec, RootSpec)
        return run(overridden(spec, ()), RunOptions())
    words = list(sys.argv if argv is None else argv)
    outcome = None

    def body() -> int:
        nonlocal outcome
        outcome = _main(spec, words)
        return 0

    if status := exit_status(body):
        raise SystemExit(status)
    return outcome


def _main(spec: RootSpec, argv: list[str]) -> RunOutcome | None:
    try:
        expect("spec", spec, RootSpec)
    except TypeError as error:
        raise UserError(str(error)) from error
    spec = named(spec, Path(argv[0]).stem)
    line = scan(argv[1:], OPTIONS)
    if line.has(HELP):
        _print_help(spec, argv[0])
        return None
    problems = [*line.problems, *(Problem("", f"unexpected argument {word!r}") for word in line.words)]
    locations = Locations()
    with gathering(problems):
        locations = load_locations(line.values(LOCATION))
    world_size = 1
    with gathering(problems):
        set_by_torchrun("RANK", 0)
    with gathering(problems):
        world_size = set_by_torchrun("WORLD_SIZE", 1, at_least=1)
    with gathering(problems):
        spec = extended(spec, line)
    if line.has(WORLD_SIZE) and not line.has(DRY_RUN):
        problems.append(
            Problem(WORLD_SIZE.flag, "is for --dry-run; a run has the ranks that torchrun starts")
        )
    said = line.has(WORLD_SIZE) or "WORLD_SIZE" in os.environ or not line.has(DRY_RUN)
    more = (refusals,) if said else (refusals, unsaid_ranks)
    world_size = line.value(WORLD_SIZE, world_size)
    spec = overridden(spec, line.fields, problems, line.flags, world_size, *more)
    if unused := list(unused_names(locations, spec)):
        raise UserError(unused)
    options = RunOptions(
        runs_dir=runs_dir_of(line),
        resume=line.value(RESUME),
        take_over=line.has(TAKE_OVER),
        restart=line.has(RESTART),
        if_needed=line.has(IF_NEEDED),
        accept_content=line.has(ACCEPT_CONTENT),
        locations=locations,
        threads=threads_like(line),
        argv=tuple(argv),
    )
    if line.has(DRY_RUN):
        _print_dry_run(spec, options, world_size)
        return None
    from mm_config.running.runners import run

    outcome = run(spec, options)
    if outcome.reused:
        say(f"an equal run has finished: {outcome.run_dir}")
    say(str(outcome.result_path.absolute()))
    return outcome


def _print_help(spec: RootSpec, file: str) -> None:
    if not is_main_rank():
        return
    from mm_config.cli.help import help_lines
    from mm_config.cli.page import print_page

    about = sys.modules["__main__"].__doc__ or type(spec).__doc__ or ""
    print_page(help_lines(spec, file, about, (*OPTIONS, HELP)))


def _print_dry_run(spec: RootSpec, options: RunOptions, world_size: int) -> None:
    if not is_main_rank():
        return
    from mm_config.cli.dry_run import dry_run_lines

    print_lines(dry_run_lines(spec, options, world_size))

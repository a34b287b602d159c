"""Carries out a spec: finds the package that registered itself for the spec's class."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs

from mm_config.console.output import passing_over, say
from mm_config.content.inputs import made_of, orders_of
from mm_config.npu.exporting import exported
from mm_config.options.run_options import RunOptions, RunOutcome
from mm_config.rules.carried_out import refusals
from mm_config.running.contents import changes_since, inputs_here
from mm_config.running.threads import on_threads
from mm_config.runs.folder import check_opens
from mm_config.runs.index import open_index
from mm_config.runs.inputs import read_inputs
from mm_config.runs.record import RESULT_FILE, read_result
from mm_config.schema.decorator import tag_of
from mm_config.schema.errors import UserError
from mm_config.schema.identity import spec_hash
from mm_config.schema.installed import loaded, registered, registered_names
from mm_config.schema.root import RootSpec

GROUP = "mm.runners"
Runner = Callable[[RootSpec, RunOptions], RunOutcome]


def run(spec: RootSpec, options: RunOptions) -> RunOutcome:
    """Runs a checked spec to its end, or reports a finished run of an equal spec and equal content where
    `options.if_needed` asks for it.

    The environment variables that the spec asks for are set while it runs, before a runner, and with it
    torch, is imported.

    Raises:
        UserError: No installed package runs this kind of spec, or it can't do all that this one says; the
            run folder can't be opened, the environment contradicts the spec, or the runner found a mistake.
    """
    if options.if_needed and (earlier := equal_run(spec, options)):
        return RunOutcome(run_dir=earlier, result_path=earlier / RESULT_FILE, reused=True)
    entry = runner_of(spec)
    check_carried_out(spec)
    with exported(spec), on_threads(options.threads):
        runner: Runner = loaded(entry, entry.value)
        check_opens(spec, options)
        with on_threads(options.threads):
            return runner(spec, attrs.evolve(options, if_needed=False))


def runner_of(spec: RootSpec) -> EntryPoint:
    """The entry point registered for a spec's wire tag.

    Raises:
        UserError: There is none, or more than one.
    """
    tag = tag_of(spec)
    if (entry := registered(GROUP, tag)) is None:
        known = ", ".join(registered_names(GROUP)) or "none"
        raise UserError(
            f"no installed package runs {tag!r} specs (installed runners: {known}); "
            "install the package that does"
        )
    return entry


def check_carried_out(spec: RootSpec) -> None:
    """Refuses what the spec's runner can't do yet, before it is imported.

    Raises:
        UserError: One problem for each field.
    """
    if problems := refusals(spec):
        raise UserError(problems)


def finished_run(spec: RootSpec, runs_dir: Path) -> Path | None:
    """The folder of the newest finished run of an equal spec_hash, if there is one."""
    index = open_index(runs_dir)
    return next((index.folder(record) for record in index.find_finished(spec_hash(spec))), None)


def equal_run(spec: RootSpec, options: RunOptions) -> Path | None:
    """The folder of the newest finished run that was made of the same in the same order; why others are not
    is said.

    Where no package tells the content of such specs, equal specs are equal runs, and that is said.
    """
    index = open_index(options.runs_dir)
    made: dict[Path, tuple[str | None, dict[str, str]]] = {}
    for record in index.find_finished(spec_hash(spec)):
        folder = index.folder(record)
        with passing_over():
            read_result(folder)
            made[folder] = record.made_of, orders_of(read_inputs(folder) or {})
    if not made:
        return None
    newest = next(iter(made))
    try:
        inputs = inputs_here(spec, options)
    except UserError as error:
        say(f"runs again: whether {newest} was made of the same can't be told ({error.problems[0]})")
        return None
    if inputs is None:
        say(f"the content that {newest} was made of is not recorded: only its spec is equal")
        return newest
    here = made_of(spec_hash(spec), inputs), orders_of(inputs)
    if same := next((folder for folder, then in made.items() if then == here), None):
        return same
    why = "; ".join(changes_since(newest, inputs, options)) or "its code had other numerics"
    say(f"runs again: {newest} has an equal spec, but {why}")
    return None

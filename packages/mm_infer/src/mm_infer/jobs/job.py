"""`mm generate --prompts`: all videos of a file, each once, whatever stops it on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import attrs

from mm_config.console import say
from mm_config.options import RunOptions
from mm_config.rules import counted
from mm_config.schema import Problem, UserError, gathering
from mm_config.specs import InferSpec
from mm_infer.carried_out import request_refusals
from mm_infer.jobs.items import Failure, Item, finished, forget_failures, item_name, write_failure
from mm_infer.jobs.making import Maker, make_items, open_maker
from mm_infer.jobs.page import write_overview
from mm_infer.layout import laid_out
from mm_infer.prompts import Asked
from mm_infer.requests import check_requests


@attrs.frozen
class JobOutcome:
    """What a job came to."""

    folders: tuple[Path, ...]
    """Of its finished items, in the order of the prompts."""
    failed: int
    """Items that could not be made."""


def run_job(
    spec: InferSpec, options: RunOptions, asked: Sequence[Asked], out: Path, keep_going: bool
) -> JobOutcome:
    """Makes what is not finished yet of what a file asks for; all ranks make the call.

    Args:
        spec: What is carried out.
        options: Where runs and locations are looked up.
        asked: The lines of the file.
        out: Gets a folder for each item, and an overview.
        keep_going: Whether lines that can't be made are recorded and passed over.

    Raises:
        UserError: A line can't be made and none is passed over, or the spec can't be carried out.
    """
    wanted, bad = checked(spec, asked)
    if bad and not (keep_going and wanted):
        raise UserError([problem for failure in bad for problem in failure.problems])
    with laid_out(spec) as layout:
        maker = open_maker(spec, options, [item.request for item in wanted], layout)
        ranks = layout.ranks
        made_of = ranks.on_first(lambda: [maker.made_of(item.request) for item in wanted])
        there = ranks.on_first(lambda: _begun(out, wanted, bad))
        items = [attrs.evolve(item, made_of=one) for item, one in zip(wanted, made_of, strict=True)]
        # A line that asks for the same as an earlier one has that one's video.
        items = list({item.made_of: item for item in reversed(items)}.values())[::-1]
        pending = [item for item in items if item.made_of not in there]
        if len(items) < len(wanted):
            say(f"{counted(len(wanted) - len(items), 'line')} asks for what an earlier line asks for, too")
        if len(pending) < len(items):
            say(f"{len(items) - len(pending)} of {counted(len(items), 'video')} are in {out} already")
        there |= _made(maker, pending, out)
        folders = [(item, Path(there[item.made_of])) for item in items if item.made_of in there]
        ranks.on_first(lambda: write_overview(out, spec, folders))
    missing = len(items) - len(folders) + len(bad)
    return JobOutcome(tuple(folder for _, folder in folders), missing)


def checked(spec: InferSpec, asked: Sequence[Asked]) -> tuple[list[Item], list[Failure]]:
    """The videos that lines ask for, and the lines that can't be read or that this spec can't make."""
    items: list[Item] = []
    bad: list[Failure] = []
    for one in asked:
        if one.problems:
            bad.append(Failure(f"{one.number:04}", one.place, None, one.problems))
        for request in one.requests:
            item = Item(item_name(one.number, request), request, one.place)
            if problems := _problems(spec, item):
                bad.append(Failure(item.name, one.place, request, problems))
            else:
                items.append(item)
    return items, bad


def _problems(spec: InferSpec, item: Item) -> tuple[Problem, ...]:
    problems = list(request_refusals([item.request]))
    with gathering(problems):
        check_requests(spec, [item.request])
    return tuple(
        attrs.evolve(one, path=f"{item.place}{one.path.removeprefix('request 0')}") for one in problems
    )


def _begun(out: Path, wanted: Sequence[Item], bad: Sequence[Failure]) -> dict[str, str]:
    """The folders of what is finished, by what they are made of; the records of failures are those of now."""
    try:
        out.mkdir(exist_ok=True)
        for failure in bad:
            write_failure(out, failure)
        forget_failures(out, [item.name for item in wanted])
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from error
    return {made_of: str(folder) for made_of, folder in finished(out).items()}


def _made(maker: Maker, pending: Sequence[Item], out: Path) -> dict[str, str]:
    """Makes what is not there yet, telling how far it is; the folders by what they are made of."""
    there: dict[str, str] = {}
    done, started = 0, time.perf_counter()

    def told(item: Item, outcome: Path | UserError) -> None:
        nonlocal done
        done += 1
        left = timedelta(seconds=round((time.perf_counter() - started) / done * (len(pending) - done)))
        if isinstance(outcome, UserError):
            said = f"failed: {outcome}"
        else:
            there[item.made_of] = str(outcome)
            said = str(outcome)
        say(f"{done}/{len(pending)} {said}" + (f" ({left} left)" if done < len(pending) else ""))

    for first in range(0, len(pending), maker.at_once):
        make_items(maker, pending[first : first + maker.at_once], out, told)
    return there

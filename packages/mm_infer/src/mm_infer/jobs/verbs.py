"""`mm worker` and `mm queue`: who makes what is asked for, and what is asked for. Imports no torch."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from mm_config import rules
from mm_config.cli import (
    ACCEPT_CONTENT,
    JSON,
    LOCATION,
    RUNS_DIR,
    CommandLine,
    Option,
    Usage,
    Verb,
    read_generations,
    runs_dir_of,
    whole_number,
)
from mm_config.console import print_json, set_by_torchrun, table
from mm_config.content import made_of
from mm_config.npu import exported
from mm_config.options import RunOptions, load_locations
from mm_config.runs import request_inputs
from mm_config.schema import Problem, UserError, prefixed, spec_hash
from mm_config.specs import GenerationRequest, InferSpec
from mm_config.stored import to_payload
from mm_infer.asking import OPTIONS, requests_of_line
from mm_infer.jobs.queue import open_queue
from mm_infer.jobs.queued import Job
from mm_infer.prompts import FILES

OUT = Option(
    "--out",
    "The folder that gets a folder for each video; hosts that share a queue share it, too.",
    "DIR",
    read=Path,
    missing="name the folder for the videos",
)
LEASE = Option(
    "--lease",
    "Seconds after which a killed worker's video goes to another worker (default: 60).",
    "S",
    read=partial(whole_number, least=3),
)
UNTIL_EMPTY = Option("--until-empty", "End where nothing waits, in place of waiting for more.")
PRIORITY = Option(
    "--priority",
    "Videos of a higher one are made first (default: 0).",
    "N",
    read=partial(whole_number, least=-100),
)
CANCEL = Option(
    "--cancel", "A video that is not wanted any more; give it again for more.", "ID", repeatable=True
)

WORKER = Usage(
    "mm worker TARGET --out DIR [--until-empty] [--spec.FIELD VALUE ...]",
    "Make the videos that wait in the queue.",
    "Loads an inference spec once and makes what mm queue has asked for. Any number of workers share a "
    "queue, on one host by the runs folder, on several by the database that MM_RUNS_URL names. A killed "
    "worker's video is made by another one. Ctrl-C or SIGTERM hands back what is under way.",
    (OUT, UNTIL_EMPTY, LEASE, ACCEPT_CONTENT, RUNS_DIR, LOCATION),
    (
        ("mm worker experiments/tiny.py --out made", "wait for videos to make"),
        ("mm worker experiments/tiny.py --out made --until-empty", "make what waits, then end"),
    ),
    words=("TARGET",),
)
QUEUE = Usage(
    "mm queue [TARGET --prompts FILE | --prompt TEXT ... [--priority N]] [--cancel ID] [--json]",
    "Ask for videos that workers make, and look how far they are.",
    "With a target, asks for videos of it: what is asked for is kept in the database before the command "
    "ends, and made by whichever mm worker of the same target is free. The same request is not asked for "
    "twice, unless it failed or was cancelled. Without one, lists what was asked for, the newest last.",
    (*OPTIONS, PRIORITY, CANCEL, JSON, RUNS_DIR),
    (
        ("mm queue experiments/tiny.py --prompts wanted.jsonl", "ask for a video for each line"),
        ("mm queue", "what waits, what is made, what failed and why"),
        ("mm queue --cancel video_1a2b3c", "one that is not wanted any more"),
    ),
    words=("[TARGET]",),
)


def make_jobs(line: CommandLine) -> int:
    """Makes what the queue asks of a spec."""
    (target,) = read_generations(line, set_by_torchrun("WORLD_SIZE", 1, at_least=1))
    spec = target.spec
    assert isinstance(spec, InferSpec)
    options = RunOptions(
        runs_dir=runs_dir_of(line),
        locations=load_locations(line.values(LOCATION)),
        accept_content=line.has(ACCEPT_CONTENT),
        argv=("mm", "worker", *line.argv),
    )
    with exported(spec):
        from mm_infer.jobs.worker import work

        work(spec, options, line.value(OUT), float(line.value(LEASE, 60)), line.has(UNTIL_EMPTY))
    return 0


def ask_or_show(line: CommandLine) -> int:
    """Adds jobs, ends some, or lists them."""
    if line.words:
        jobs = _ask(line)
    elif found := _without_target(line):
        raise UserError(found)
    else:
        queue = open_queue(runs_dir_of(line))
        jobs = [queue.cancel(id) for id in line.values(CANCEL)] if line.has(CANCEL) else queue.jobs()
    if line.has(JSON):
        print_json([_as_json(job) for job in jobs])
        return 0
    found = Counter(job.status.value for job in jobs)
    counts = ", ".join(f"{count} {status}" for status, count in found.items())
    header = ("id", "status", "done", "tries", "asked at", "prompt", "reason")
    table(f"queue: {counts or 'empty'}", [_row(job) for job in jobs], header if jobs else ())
    return 0


def _ask(line: CommandLine) -> list[Job]:
    """Adds what a command line asks for to the queue."""
    requests, problems = requests_of_line(line)
    if line.has(CANCEL):
        problems.append(Problem(CANCEL.flag, "has no part in asking; leave out the target"))
    (target,) = read_generations(attrs.evolve(line, problems=(*line.problems, *problems)))
    spec = target.spec
    assert isinstance(spec, InferSpec)
    several = [*enumerate(requests)]
    if wrong := [
        problem
        for index, one in several
        for problem in prefixed(rules.request_problems(one, spec), f"request {index}")
    ]:
        raise UserError(wrong)
    here = [_absolute(one) for one in requests]
    model = spec_hash(spec)
    keys = [made_of(model, request_inputs([one])) for one in here]
    queue = open_queue(runs_dir_of(line))
    return queue.submit(here, model, keys=keys, priority=line.value(PRIORITY, 0))


def _absolute(request: GenerationRequest) -> GenerationRequest:
    """A request whose files are found from any folder."""
    given = {name: getattr(request, name) for name in FILES}
    return attrs.evolve(request, **{name: str(Path(file).absolute()) for name, file in given.items() if file})


def _without_target(line: CommandLine) -> list[Problem]:
    asked = [option.flag for option in (*OPTIONS, PRIORITY) if line.has(option)]
    found = [Problem(flag, "asks for videos; name the target that makes them") for flag in asked]
    return [*line.problems, *line.unknown_flags(), *found]


def _row(job: Job) -> tuple[str, ...]:
    asked = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return (
        job.id,
        job.status.value,
        f"{job.progress:.0%}",
        str(job.tries),
        asked,
        job.request.prompt,
        job.reason or "",
    )


def _as_json(job: Job) -> dict[str, Any]:
    values = attrs.asdict(job, recurse=False)
    return {**values, "request": to_payload(job.request), "status": job.status.value, "token": None}


WORKER_VERB = Verb(WORKER, make_jobs)
QUEUE_VERB = Verb(QUEUE, ask_or_show)

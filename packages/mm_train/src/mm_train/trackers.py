"""Metrics for those who look at them elsewhere: TensorBoard's files, Weights & Biases."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mm_config.schema import Problem, UserError
from mm_config.specs import TrainSpec
from mm_config.stored import to_payload
from mm_train.metrics import Line, Sink, flat
from mm_train.work import Training

TENSORBOARD = "tensorboard"
"""Folder of its files in the run folder."""


def require_trackers(spec: TrainSpec) -> None:
    """Looks for what a spec's trackers need, on the rank that writes.

    Raises:
        UserError: A package is not installed, or Weights & Biases would ask for a key.
    """
    problems: list[Problem] = []
    runtime = spec.runtime
    wanted = {"tensorboard": runtime.tensorboard, "wandb": runtime.wandb_project is not None}
    fields = {"tensorboard": "tensorboard", "wandb": "wandb_project"}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        if find_spec(name) is None:
            message = f"needs the package {name}: pip install 'mm-train[{name}]'"
            problems.append(Problem(f"spec.runtime.{fields[name]}", message))
        elif name == "wandb" and not _may_log_in():
            message = "no key for Weights & Biases was found; run `wandb login`, set WANDB_API_KEY, or set "
            message += "WANDB_MODE=offline to keep everything in the run folder"
            problems.append(Problem("spec.runtime.wandb_project", message))
    if problems:
        raise UserError(problems)


@contextmanager
def tracking(training: Training, first_step: int) -> Generator[None]:
    """Has lines also go to the spec's trackers in a block, on the rank that writes.

    A resumed run goes on in its own curves: what was sent of the steps after `first_step` is replaced in
    TensorBoard, and stays in Weights & Biases, where it is equal.
    """
    runtime = training.spec.runtime
    with ExitStack() as open_:
        if training.ranks.is_first and runtime.tensorboard:
            training.sinks.append(open_.enter_context(_tensorboard(training, first_step)))
        if training.ranks.is_first and runtime.wandb_project is not None:
            training.sinks.append(open_.enter_context(_wandb(training, runtime.wandb_project)))
        yield


@contextmanager
def _tensorboard(training: Training, first_step: int) -> Generator[Sink]:
    # Their classes are made when the modules are imported.
    events: Any = import_module("tensorboard.compat.proto.event_pb2")
    summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(training.run.path / TENSORBOARD))

    def send(line: Line) -> None:
        values = [
            summaries.Summary.Value(tag=name, simple_value=number)
            for name, number in flat(line).items()
            if name != "step"
        ]
        summary = summaries.Summary(value=values)
        writer.add_event(events.Event(wall_time=time.time(), step=line["step"], summary=summary))

    if first_step:
        start = events.SessionLog(status=events.SessionLog.START)
        writer.add_event(events.Event(wall_time=time.time(), step=first_step + 1, session_log=start))
    try:
        yield send
    finally:
        writer.close()


@contextmanager
def _wandb(training: Training, project: str) -> Generator[Sink]:
    import wandb

    run = training.run
    content: Any = to_payload(training.spec)
    opened: Any = wandb.init(
        project=project,
        name=f"{training.spec.name} {run.path.name}".strip(),
        id=run.record.uid,
        resume="allow",
        dir=str(run.path),
        config=content["spec"],
        settings=wandb.Settings(console="off", silent=True),
    )

    def send(line: Line) -> None:
        numbers = flat(line)
        opened.log(numbers, step=int(numbers.pop("step")))

    ended = 1
    try:
        yield send
        ended = 0
    finally:
        opened.finish(exit_code=ended)


def _may_log_in() -> bool:
    """Whether a run can be started without asking a person."""
    import wandb

    return wandb.setup().settings.mode != "online" or bool(wandb.login(prompt=False))

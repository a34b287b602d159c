"""Which state a training goes on from, and the damaged ones that it passes over."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import attrs

import mm_data
from mm_config.console import say
from mm_config.durable import read_bytes, set_aside
from mm_config.options import RunOptions
from mm_config.runs import Run, resumed
from mm_config.schema import Problem, UserError
from mm_config.specs import TrainSpec
from mm_models import checkpoint
from mm_models.ranks import Ranks
from mm_train import states
from mm_train.metrics import MOST_BYTES
from mm_train.states import TrainState
from mm_train.work import Training


@attrs.frozen
class ResumePoint:
    """Where a training goes on."""

    run_dir: str
    """The run folder."""
    saved: str | None
    """Its newest intact checkpoint; None where the run ended before it had any."""
    passed_over: dict[str, str]
    """What is wrong with each newer one, by its path."""


def resume_point(spec: TrainSpec, options: RunOptions, ranks: Ranks) -> ResumePoint | None:
    """Where the run goes on that `options.resume` names; None where a new one is to be made.

    The first rank reads the checkpoints, before the run is opened: one that is refused stays as it was.

    Raises:
        UserError: The run can't be found, is one of another spec, or had checkpoints of which none is intact,
            and `options.restart` asks for no new run.
    """
    found = ranks.on_first(lambda: _look(spec, options))
    return None if found is None else ResumePoint(**found)


def restore(training: Training, point: ResumePoint) -> TrainState:
    """Fills the network and the optimizer from the point's checkpoint; the data stream goes on where it was.

    Damaged checkpoints that were passed over are renamed, so that the same steps don't replace them, and old
    ones beyond `keep_last` are removed.

    Raises:
        UserError: The checkpoint doesn't fit, holds a number that is not finite, or another process has
            written a newer one; or a damaged one can't be renamed.
    """
    spec, ranks = training.spec, training.ranks
    saved = Path(str(point.saved))
    state = ranks.together(
        lambda: states.restore(saved, training.network, training.optimizer, training.more_groups())
    )
    ranks.together(
        lambda: mm_data.resume_step(
            state.data, spec.data, training.dataset, seed=spec.seed, plan=training.plan
        )
    )
    if strange := states.not_finite(states.saved_shards(training.network, training.optimizer), ranks):
        raise UserError(Problem(str(saved), f"{strange[0]} is not finite; remove it to resume an older one"))

    def tidy() -> None:
        _set_aside(point)
        states.prune(saved, spec.checkpoint)  # Whoever saved it may have been killed before.

    ranks.on_first(tidy)
    say(f"resuming {training.run.path} after step {state.step}")
    return state


def _look(spec: TrainSpec, options: RunOptions) -> dict[str, Any] | None:
    if options.resume is None:
        return None
    run = resumed(spec, options)
    if run is None:
        say(f"there is no run to resume in {options.runs_dir}; a new one is made")
        return None
    damaged: dict[str, str] = {}
    for folder in checkpoint.newest_first(run.checkpoints_dir):
        if damage := states.damage_of(folder):
            damaged[str(folder)] = damage
            continue
        return attrs.asdict(ResumePoint(str(run.path), str(folder), damaged))
    if not damaged and not _had_checkpoints(run, spec):
        return attrs.asdict(ResumePoint(str(run.path), None, {}))
    how, again = options.name_of("resume"), options.name_of("restart")
    lost = [
        Problem(how, f"{run.path} has no intact checkpoint left; with {again} a new run is made"),
        *(Problem(path, damage) for path, damage in damaged.items()),
    ]
    if not options.restart:
        raise UserError(lost)
    for problem in lost:
        say(str(problem))
    return None


def _had_checkpoints(run: Run, spec: TrainSpec) -> bool:
    """Whether a run in which there are none had some: it finished, went on after one, or set one aside."""
    assert isinstance(run.spec, TrainSpec)
    kept = (run.spec.checkpoint, spec.checkpoint)
    # One that is written beside the steps is there before the next one begins.
    between = max(one.every_steps * (1 + one.asynchronous) for one in kept)
    logged = 0
    with suppress(OSError):  # What can't be read tells nothing, and is set aside later.
        logged = read_bytes(run.metrics_path, MOST_BYTES).count(b'"grad_norm"')
    return run.result_path.exists() or logged > between or any(run.checkpoints_dir.glob("step-*.damaged*"))


def _set_aside(point: ResumePoint) -> None:
    saved = Path(str(point.saved))
    newer = takewhile(saved.__ne__, checkpoint.newest_first(saved.parent))
    if unknown := [str(folder) for folder in newer if str(folder) not in point.passed_over]:
        raise UserError(Problem(unknown[0], "was written by another process meanwhile; resume again"))
    for path, damage in point.passed_over.items():
        try:
            kept = set_aside(Path(path)).name
        except OSError as error:
            raise UserError(Problem(path, f"is damaged and can't be renamed: {error.strerror}")) from error
        say(f"passed over {path}: {damage}; it is kept as {kept}")
